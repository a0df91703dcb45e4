# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_wwan_quirks_global_optspecs
    string join \n root= v/verbose q/quiet h/help V/version
end

function __fish_wwan_quirks_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_wwan_quirks_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_wwan_quirks_using_subcommand
    set -l cmd (__fish_wwan_quirks_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -s V -l version -d 'Print version'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "hook" -d 'Handle one udev event, described by the environment'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "apply" -d 'Do now what the hook would do; reconfigure a modem that is in use only if DEVICE names it'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "status" -d 'Show each modem\'s identity, mode, configuration and last result'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "explain" -d 'Show which quirk and which policy apply to a modem, and the plan; with -v, also the messages in hex'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "composition" -d 'Show the USB composition of a modem, or set it permanently'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "report" -d 'Print what a maintainer needs to add or fix a quirk, with serial numbers masked'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "doctor" -d 'Find problems on this system, and show their remedies'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "list" -d 'Print the database, one quirk per line'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "check" -d 'Validate the database and the policy, or the named files'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "rules" -d 'Print the udev rules for the installed database'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "export" -d 'Print the database in a format for other programs, or write it to a directory'
complete -c wwan-quirks -n "__fish_wwan_quirks_needs_command" -f -a "import" -d 'Convert usb_modeswitch configuration files, or the output of `export json`, into quirks'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand hook" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand hook" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand hook" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand hook" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -l unlock -d 'Only unlock radios'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -l dry-run -d 'Print the plan and send nothing; with -v, also the messages in hex'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand apply" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand status" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand status" -l query -d 'Ask the modem for the state of its radio, through the proxy if one holds its port'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand status" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand status" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand status" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand status" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand explain" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand explain" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand explain" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand explain" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand explain" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -l password -d 'Password for AT!ENTERCND; default: the factory password' -r
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -l no-at-port -d 'Allow a composition that has no AT port, or whose functions are not known'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -l reset -d 'Reset the modem and wait until it returns with the new composition'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand composition" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand report" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand report" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand report" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand report" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand report" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand doctor" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand doctor" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand doctor" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand doctor" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand list" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand list" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand list" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand list" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand list" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand check" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand check" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand check" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand check" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand check" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand rules" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand rules" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand rules" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand rules" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand rules" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand export" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand export" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand export" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand export" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand export" -s h -l help -d 'Print help'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand import" -l root -d 'Use DIR instead of `/` as the root directory, for tests and images' -r -F
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand import" -l json -d 'Print JSON'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand import" -s v -l verbose -d 'Also print informational messages to standard error; -vv prints all messages'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand import" -s q -l quiet -d 'Print only errors to standard error'
complete -c wwan-quirks -n "__fish_wwan_quirks_using_subcommand import" -s h -l help -d 'Print help'
