# An idle client of qmi-proxy or mbim-proxy that makes the proxy hold the port: client.pl WAY PATH.
my ($way, $path) = @ARGV;
my $message;
if ($way eq 'qmi') {
	my $tlvs = pack('Cv/a', 1, $path);
	$message = pack('C v C3 C2 v v/a', 1, 11 + length $tlvs, 0, 0, 0, 0, 1, 0xff00, $tlvs);
} else {
	my $wide = join '', map { pack('v', ord) } split //, $path;
	my $buffer = pack('V3', 12, length $wide, 5) . $wide;
	my $service = pack('H*', '838cf7fb8d0d4d7f871ed71dbefbb39b');
	$message = pack('V3 V2 a16 V2 V/a', 3, 48 + length $buffer, 1, 1, 0, $service, 1, 1, $buffer);
}
# 1 and 1 are AF_UNIX and SOCK_STREAM.
socket(PROXY, 1, 1, 0) && connect(PROXY, pack('S', 1) . "\0$way-proxy") or die "no $way-proxy: $!\n";
syswrite(PROXY, $message);
sysread(PROXY, my $answer, 4096);
sleep;
