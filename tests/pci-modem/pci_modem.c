// SPDX-License-Identifier: GPL-2.0
/*
 * PCI modems without hardware, for tests.
 *
 * The module has a few PCI host bridges, each with its own domain and one root port. A process that opens
 * /dev/pci-modem gets one of them. It plugs a function into the root port and serves the function's WWAN ports. The
 * function is removed when the file is closed.
 *
 * Each write is one record, and each read returns one: its kind (one byte), the number of a port, and data.
 * README.md lists the records.
 */
#include <linux/if_arp.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/skbuff.h>
#include <linux/uaccess.h>
#include <linux/wwan.h>

#define BRIDGES		4
#define PORTS		8
#define ROOT_PORT	PCI_DEVFN(0x1c, 0)
#define SECONDARY	8
#define CONFIG_SIZE	256
#define MAX_RECORD	(64 * 1024)
#define MAX_QUEUED	1024

/* Records from the process. */
#define PLUG		'P'
#define UNPLUG		'U'
#define DATA		'D'	/* in both directions */
#define BLOCK		'B'
#define FAIL		'F'
#define STOP_TX		'X'
/* Records to the process. */
#define PLUGGED		'P'	/* with the name of the function */
#define OPENED		'O'
#define CLOSED		'C'
#define REMOVED		'R'

/* The data of PLUG, after its port byte. Little-endian. */
struct plug {
	__le16 vendor, device, subsystem_vendor, subsystem_device;
	u8 driver;	/* index of drivers[] */
	u8 mhi;		/* whether the ports have a parent mhiN */
	u8 net;		/* whether there is a network interface */
	u8 ports;	/* number of types that follow */
	u8 types[PORTS];	/* index of port_types[] */
} __packed;

struct bed;

struct port {
	struct bed *bed;
	struct wwan_port *wwan;	/* while it is open */
	struct wwan_port *created;
};

/* One host bridge, and the function below its root port. */
struct bed {
	struct pci_sysdata sysdata;
	struct pci_bus *bus;
	struct pci_dev *bridge;
	u8 bridge_config[CONFIG_SIZE];
	u8 config[CONFIG_SIZE];
	struct plug plug;
	bool present;		/* the function answers on the bus */
	bool taken;		/* a process owns the bridge */
	bool leaving;		/* ports can no longer be opened */
	bool net;
	unsigned int block;	/* duration of an open, in seconds */
	int fail;		/* error of an open, 0 for none */
	struct mutex plugging;	/* one plug or unplug at a time */
	struct mutex lock;	/* port->wwan */
	struct device *mhi;
	struct port port[PORTS];
	struct sk_buff_head records;
	wait_queue_head_t readers;
	wait_queue_head_t openers;
};

static struct bed beds[BRIDGES];
static DEFINE_MUTEX(taking);

static const enum wwan_port_type port_types[] = {
	WWAN_PORT_AT, WWAN_PORT_MBIM, WWAN_PORT_QMI, WWAN_PORT_QCDM, WWAN_PORT_FIREHOSE,
#ifdef HAVE_XMMRPC
	WWAN_PORT_XMMRPC,
#endif
};

#ifdef HAVE_PORT_CAPS
#define create_port(parent, type, ops, data) wwan_create_port(parent, type, ops, NULL, data)
#else
#define create_port(parent, type, ops, data) wwan_create_port(parent, type, ops, data)
#endif

/* The bus. ------------------------------------------------------------------------------------------------- */

static struct bed *bed_of(struct pci_bus *bus)
{
	return container_of((struct pci_sysdata *)bus->sysdata, struct bed, sysdata);
}

static u8 *config_of(struct pci_bus *bus, unsigned int devfn)
{
	struct bed *bed = bed_of(bus);

	if (bus->number == 0 && devfn == ROOT_PORT)
		return bed->bridge_config;
	if (bus->number == SECONDARY && devfn == 0 && bed->present)
		return bed->config;
	return NULL;
}

static int config_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	u8 *config = config_of(bus, devfn);
	int i;

	*value = ~0U;
	if (!config)
		return PCIBIOS_DEVICE_NOT_FOUND;
	*value = 0;
	for (i = 0; i < size && where + i < CONFIG_SIZE; i++)
		*value |= (u32)config[where + i] << (8 * i);
	return PCIBIOS_SUCCESSFUL;
}

/* The writable part of the configuration space. The rest is read-only, including base addresses and windows. */
static bool is_writable(const u8 *config, int where)
{
	switch (where) {
	case PCI_COMMAND:
	case PCI_COMMAND + 1:
	case PCI_CACHE_LINE_SIZE:
	case PCI_LATENCY_TIMER:
	case PCI_INTERRUPT_LINE:
		return true;
	case PCI_PRIMARY_BUS:
	case PCI_SECONDARY_BUS:
	case PCI_SUBORDINATE_BUS:
	case PCI_BRIDGE_CONTROL:
	case PCI_BRIDGE_CONTROL + 1:
		return config[PCI_HEADER_TYPE] == PCI_HEADER_TYPE_BRIDGE;
	default:
		return false;
	}
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	u8 *config = config_of(bus, devfn);
	int i;

	if (!config)
		return PCIBIOS_DEVICE_NOT_FOUND;
	for (i = 0; i < size && where + i < CONFIG_SIZE; i++)
		if (is_writable(config, where + i))
			config[where + i] = value >> (8 * i);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops config_ops = { .read = config_read, .write = config_write };

static void put16(u8 *config, int where, u16 value)
{
	config[where] = value;
	config[where + 1] = value >> 8;
}

/* A root port with all windows closed: each base is above its limit. */
static void describe_bridge(u8 *config)
{
	put16(config, PCI_VENDOR_ID, PCI_VENDOR_ID_INTEL);
	put16(config, PCI_DEVICE_ID, 0xa0b0);
	put16(config, PCI_CLASS_DEVICE, PCI_CLASS_BRIDGE_PCI);
	config[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_BRIDGE;
	config[PCI_SECONDARY_BUS] = SECONDARY;
	config[PCI_SUBORDINATE_BUS] = SECONDARY;
	config[PCI_IO_BASE] = 0xf0;
	put16(config, PCI_MEMORY_BASE, 0xfff0);
	put16(config, PCI_PREF_MEMORY_BASE, 0xfff0);
}

static void describe_function(u8 *config, const struct plug *plug)
{
	memset(config, 0, CONFIG_SIZE);
	put16(config, PCI_VENDOR_ID, le16_to_cpu(plug->vendor));
	put16(config, PCI_DEVICE_ID, le16_to_cpu(plug->device));
	put16(config, PCI_SUBSYSTEM_VENDOR_ID, le16_to_cpu(plug->subsystem_vendor));
	put16(config, PCI_SUBSYSTEM_ID, le16_to_cpu(plug->subsystem_device));
	/* A wireless controller for cellular networks. MHI modems report no class. */
	put16(config, PCI_CLASS_DEVICE, plug->mhi ? 0xff00 : 0x0d40);
}

/* Records. ------------------------------------------------------------------------------------------------- */

/* Queues a record with the data of this buffer, and takes ownership of it. */
static void queue(struct bed *bed, u8 kind, u8 port, struct sk_buff *skb)
{
	skb->cb[0] = kind;
	skb->cb[1] = port;
	skb_queue_tail(&bed->records, skb);
	wake_up_interruptible(&bed->readers);
}

static int report_text(struct bed *bed, u8 kind, u8 port, const char *text)
{
	struct sk_buff *skb = alloc_skb(strlen(text), GFP_KERNEL);

	if (!skb)
		return -ENOMEM;
	skb_put_data(skb, text, strlen(text));
	queue(bed, kind, port, skb);
	return 0;
}

static int report(struct bed *bed, u8 kind, u8 port)
{
	return report_text(bed, kind, port, "");
}

static u8 number_of(const struct port *port)
{
	return port - port->bed->port;
}

/* The ports. ----------------------------------------------------------------------------------------------- */

static int port_start(struct wwan_port *wwan)
{
	struct port *port = wwan_port_get_drvdata(wwan);
	struct bed *bed = port->bed;
	unsigned long limit = READ_ONCE(bed->block) * HZ;
	int fail;

	/* No signal ends the wait, as with MHI. */
	if (limit)
		wait_event_timeout(bed->openers, !READ_ONCE(bed->block) || READ_ONCE(bed->leaving), limit);
	if (READ_ONCE(bed->leaving))
		return -ENODEV;
	fail = READ_ONCE(bed->fail);
	if (fail)
		return -fail;
	mutex_lock(&bed->lock);
	port->wwan = wwan;
	mutex_unlock(&bed->lock);
	return report(bed, OPENED, number_of(port));
}

static void port_stop(struct wwan_port *wwan)
{
	struct port *port = wwan_port_get_drvdata(wwan);

	mutex_lock(&port->bed->lock);
	port->wwan = NULL;
	mutex_unlock(&port->bed->lock);
	report(port->bed, CLOSED, number_of(port));
}

static int port_tx(struct wwan_port *wwan, struct sk_buff *skb)
{
	struct port *port = wwan_port_get_drvdata(wwan);

	if (skb_queue_len(&port->bed->records) > MAX_QUEUED)
		return -EAGAIN;
	skb_orphan(skb);
	queue(port->bed, DATA, number_of(port), skb);
	return 0;
}

static const struct wwan_port_ops port_ops = { .start = port_start, .stop = port_stop, .tx = port_tx };

static netdev_tx_t net_xmit(struct sk_buff *skb, struct net_device *net)
{
	dev_kfree_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops net_ops = { .ndo_start_xmit = net_xmit };

static void net_setup(struct net_device *net)
{
	net->netdev_ops = &net_ops;
	net->type = ARPHRD_NONE;
	net->flags = IFF_POINTOPOINT | IFF_NOARP;
	net->mtu = ETH_DATA_LEN;
	net->min_mtu = ETH_MIN_MTU;
	net->max_mtu = ETH_MAX_MTU;
	net->needs_free_netdev = true;
}

static int net_newlink(void *context, struct net_device *net, u32 id, struct netlink_ext_ack *extack)
{
	return register_netdevice(net);
}

static void net_dellink(void *context, struct net_device *net, struct list_head *head)
{
	unregister_netdevice_queue(net, head);
}

static const struct wwan_ops link_ops = {
	.setup = net_setup, .newlink = net_newlink, .dellink = net_dellink,
};

/* The function's driver. ----------------------------------------------------------------------------------- */

static struct bus_type mhi_bus = { .name = "mhi" };

static void mhi_release(struct device *mhi)
{
	kfree(mhi);
}

static struct device *mhi_create(struct device *parent, int number)
{
	struct device *mhi = kzalloc(sizeof(*mhi), GFP_KERNEL);
	int error;

	if (!mhi)
		return ERR_PTR(-ENOMEM);
	mhi->bus = &mhi_bus;
	mhi->parent = parent;
	mhi->release = mhi_release;
	device_initialize(mhi);
	error = dev_set_name(mhi, "mhi%d", number);
	if (!error)
		error = device_add(mhi);
	if (error) {
		put_device(mhi);
		return ERR_PTR(error);
	}
	return mhi;
}

static void function_remove(struct pci_dev *pdev)
{
	struct bed *bed = bed_of(pdev->bus);
	int i;

	WRITE_ONCE(bed->leaving, true);
	wake_up_all(&bed->openers);
	if (bed->net)
		wwan_unregister_ops(bed->mhi ? bed->mhi : &pdev->dev);
	bed->net = false;
	for (i = 0; i < PORTS; i++) {
		if (bed->port[i].created)
			wwan_remove_port(bed->port[i].created);
		bed->port[i].created = NULL;
	}
	if (bed->mhi)
		device_unregister(bed->mhi);
	bed->mhi = NULL;
	report(bed, REMOVED, 0);
}

static int function_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct bed *bed = bed_of(pdev->bus);
	struct device *parent = &pdev->dev;
	struct wwan_port *created;
	int error = 0, i;

	WRITE_ONCE(bed->leaving, false);
	if (bed->plug.mhi) {
		parent = mhi_create(parent, bed - beds);
		if (IS_ERR(parent))
			return PTR_ERR(parent);
		bed->mhi = parent;
	}
	for (i = 0; i < bed->plug.ports && !error; i++) {
		created = create_port(parent, port_types[bed->plug.types[i]], &port_ops, &bed->port[i]);
		if (IS_ERR(created))
			error = PTR_ERR(created);
		else
			bed->port[i].created = created;
	}
	if (bed->plug.net && !error) {
		error = wwan_register_ops(parent, &link_ops, bed, 0);
		bed->net = !error;
	}
	if (error)
		function_remove(pdev);
	return error;
}

/* The drivers have no IDs: driver_override binds them. The real drivers with these names cannot register. */
static struct pci_driver drivers[] = {
	{ .name = "mhi-pci-generic", .probe = function_probe, .remove = function_remove },
	{ .name = "iosm", .probe = function_probe, .remove = function_remove },
	{ .name = "mtk_t7xx", .probe = function_probe, .remove = function_remove },
};

static int override_driver(struct pci_dev *pdev, const char *name)
{
#ifdef HAVE_DEVICE_OVERRIDE
	return device_set_driver_override(&pdev->dev, name);
#else
	pdev->driver_override = kstrdup(name, GFP_KERNEL);
	return pdev->driver_override ? 0 : -ENOMEM;
#endif
}

/* Plug and unplug. ----------------------------------------------------------------------------------------- */

static void unplug(struct bed *bed)
{
	struct pci_dev *pdev;

	/* A pending open of a port would delay its removal. */
	WRITE_ONCE(bed->leaving, true);
	wake_up_all(&bed->openers);
	mutex_lock(&bed->plugging);
	pci_lock_rescan_remove();
	pdev = pci_get_slot(bed->bridge->subordinate, 0);
	if (pdev) {
		pci_stop_and_remove_bus_device(pdev);
		pci_dev_put(pdev);
	}
	bed->present = false;
	pci_unlock_rescan_remove();
	mutex_unlock(&bed->plugging);
}

static int plug(struct bed *bed, const u8 *data, size_t length)
{
	const struct plug *wanted = (const void *)data;
	struct pci_dev *pdev;
	int error = -ENODEV, i;

	if (length < offsetof(struct plug, types) || wanted->ports > PORTS ||
	    length != offsetof(struct plug, types) + wanted->ports || wanted->driver >= ARRAY_SIZE(drivers))
		return -EINVAL;
	for (i = 0; i < wanted->ports; i++)
		if (wanted->types[i] >= ARRAY_SIZE(port_types))
			return -EOPNOTSUPP;
	unplug(bed);
	mutex_lock(&bed->plugging);
	memcpy(&bed->plug, data, length);
	describe_function(bed->config, &bed->plug);
	pci_lock_rescan_remove();
	bed->present = true;
	pci_scan_slot(bed->bridge->subordinate, 0);
	pdev = pci_get_slot(bed->bridge->subordinate, 0);
	if (pdev) {
		report_text(bed, PLUGGED, 0, pci_name(pdev));
		error = override_driver(pdev, drivers[bed->plug.driver].name);
		pci_bus_add_devices(bed->bridge->subordinate);
		pci_dev_put(pdev);
	}
	pci_unlock_rescan_remove();
	mutex_unlock(&bed->plugging);
	return error;
}

/* The process's side. -------------------------------------------------------------------------------------- */

static int control_open(struct inode *inode, struct file *file)
{
	int error = -EBUSY, i;

	mutex_lock(&taking);
	for (i = 0; i < BRIDGES && error; i++) {
		if (beds[i].taken)
			continue;
		beds[i].taken = true;
		beds[i].block = 0;
		beds[i].fail = 0;
		file->private_data = &beds[i];
		error = 0;
	}
	mutex_unlock(&taking);
	return error;
}

static int control_release(struct inode *inode, struct file *file)
{
	struct bed *bed = file->private_data;

	unplug(bed);
	skb_queue_purge(&bed->records);
	mutex_lock(&taking);
	bed->taken = false;
	mutex_unlock(&taking);
	return 0;
}

static ssize_t control_read(struct file *file, char __user *buffer, size_t size, loff_t *offset)
{
	struct bed *bed = file->private_data;
	struct sk_buff *skb;
	u8 head[2];
	ssize_t length;

	do {
		if (wait_event_interruptible(bed->readers, !skb_queue_empty(&bed->records)))
			return -ERESTARTSYS;
		skb = skb_dequeue(&bed->records);
	} while (!skb);
	head[0] = skb->cb[0];
	head[1] = skb->cb[1];
	length = sizeof(head) + skb->len;
	if (length > size)
		length = -EMSGSIZE;
	else if (copy_to_user(buffer, head, sizeof(head)) ||
		 copy_to_user(buffer + sizeof(head), skb->data, skb->len))
		length = -EFAULT;
	kfree_skb(skb);
	return length;
}

/* A message to a port that no process has open is lost. */
static int receive(struct bed *bed, u8 number, const u8 *data, size_t length)
{
	struct sk_buff *skb = alloc_skb(length, GFP_KERNEL);

	if (!skb)
		return -ENOMEM;
	skb_put_data(skb, data, length);
	mutex_lock(&bed->lock);
	if (bed->port[number].wwan)
		wwan_port_rx(bed->port[number].wwan, skb);
	else
		kfree_skb(skb);
	mutex_unlock(&bed->lock);
	return 0;
}

static int stop_tx(struct bed *bed, u8 number, bool stop)
{
	mutex_lock(&bed->lock);
	if (bed->port[number].wwan) {
		if (stop)
			wwan_port_txoff(bed->port[number].wwan);
		else
			wwan_port_txon(bed->port[number].wwan);
	}
	mutex_unlock(&bed->lock);
	return 0;
}

static int obey(struct bed *bed, u8 kind, u8 number, const u8 *data, size_t length)
{
	if (number >= PORTS)
		return -EINVAL;
	switch (kind) {
	case PLUG:
		return plug(bed, data, length);
	case UNPLUG:
		unplug(bed);
		return 0;
	case DATA:
		return receive(bed, number, data, length);
	case BLOCK:
	case FAIL:
	case STOP_TX:
		if (length != 1)
			return -EINVAL;
		if (kind == STOP_TX)
			return stop_tx(bed, number, data[0]);
		if (kind == FAIL)
			WRITE_ONCE(bed->fail, data[0]);
		else
			WRITE_ONCE(bed->block, data[0]);
		wake_up_all(&bed->openers);
		return 0;
	default:
		return -EINVAL;
	}
}

static ssize_t control_write(struct file *file, const char __user *buffer, size_t size, loff_t *offset)
{
	u8 *record;
	int error;

	if (size < 2 || size > MAX_RECORD)
		return -EINVAL;
	record = memdup_user(buffer, size);
	if (IS_ERR(record))
		return PTR_ERR(record);
	error = obey(file->private_data, record[0], record[1], record + 2, size - 2);
	kfree(record);
	return error ? error : size;
}

static const struct file_operations control_ops = {
	.owner = THIS_MODULE,
	.open = control_open,
	.release = control_release,
	.read = control_read,
	.write = control_write,
};

static struct miscdevice control = { .minor = MISC_DYNAMIC_MINOR, .name = "pci-modem", .fops = &control_ops };

/* The module. ---------------------------------------------------------------------------------------------- */

static void remove_bridge(struct bed *bed)
{
	if (!bed->bus)
		return;
	pci_lock_rescan_remove();
	pci_dev_put(bed->bridge);
	pci_stop_root_bus(bed->bus);
	pci_remove_root_bus(bed->bus);
	pci_unlock_rescan_remove();
	bed->bus = NULL;
}

static int create_bridge(struct bed *bed, int domain)
{
	LIST_HEAD(resources);
	int i;

	mutex_init(&bed->plugging);
	mutex_init(&bed->lock);
	skb_queue_head_init(&bed->records);
	init_waitqueue_head(&bed->readers);
	init_waitqueue_head(&bed->openers);
	for (i = 0; i < PORTS; i++)
		bed->port[i].bed = bed;
	while (pci_find_bus(domain, 0))
		domain++;
	bed->sysdata.domain = domain;
	bed->sysdata.node = NUMA_NO_NODE;
	describe_bridge(bed->bridge_config);

	pci_lock_rescan_remove();
	bed->bus = pci_scan_root_bus(NULL, 0, &config_ops, &bed->sysdata, &resources);
	if (bed->bus) {
		pci_bus_add_devices(bed->bus);
		bed->bridge = pci_get_slot(bed->bus, ROOT_PORT);
	}
	pci_unlock_rescan_remove();
	return bed->bridge && bed->bridge->subordinate ? 0 : -ENODEV;
}

static int __init pci_modem_init(void)
{
	int error, bridges, registered = 0;

	error = bus_register(&mhi_bus);
	if (error)
		return error;
	for (; registered < ARRAY_SIZE(drivers) && !error; registered++)
		error = pci_register_driver(&drivers[registered]);
	if (error)
		registered--;
	for (bridges = 0; bridges < BRIDGES && !error; bridges++)
		error = create_bridge(&beds[bridges], 1);
	if (!error)
		error = misc_register(&control);
	if (!error)
		return 0;
	while (bridges--)
		remove_bridge(&beds[bridges]);
	while (registered--)
		pci_unregister_driver(&drivers[registered]);
	bus_unregister(&mhi_bus);
	return error;
}

static void __exit pci_modem_exit(void)
{
	int i;

	misc_deregister(&control);
	for (i = 0; i < BRIDGES; i++)
		remove_bridge(&beds[i]);
	for (i = 0; i < ARRAY_SIZE(drivers); i++)
		pci_unregister_driver(&drivers[i]);
	bus_unregister(&mhi_bus);
}

module_init(pci_modem_init);
module_exit(pci_modem_exit);
MODULE_DESCRIPTION("PCI modems without hardware, for tests");
MODULE_LICENSE("GPL");
