# The eBPF programs as ELF files, one each and all in one, for those who want to look at them or attach them by hand.
{
  lib,
  runCommand,
  electrode,
}:
runCommand "electrode-bpf-objects-${electrode.version}" { } ''
  mkdir -p $out/lib/bpf
  for program in dispatch prepare prepare_ok broadcast all; do
    ${lib.getExe electrode} dump --program $program --format elf --output $out/lib/bpf/$program.o
  done
''
