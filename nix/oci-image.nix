# A container image with the command alone. The fast path needs the host's network and CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON.
{
  lib,
  dockerTools,
  electrode,
}:
dockerTools.buildLayeredImage {
  name = "electrode";
  tag = electrode.version;
  contents = [ electrode ];
  config = {
    Entrypoint = [ (lib.getExe electrode) ];
    WorkingDir = "/var/lib/electrode";
    Volumes."/var/lib/electrode" = { };
  };
}
