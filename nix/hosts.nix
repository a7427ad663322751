# Complete systems: what the images contain, for each architecture.
{
  lib,
  self,
}:
let
  host =
    system:
    lib.nixosSystem {
      modules = [
        (import ./host.nix self)
        {
          nixpkgs.hostPlatform = system;
          boot.loader.systemd-boot.enable = true;
          fileSystems."/" = {
            device = "/dev/disk/by-label/nixos";
            fsType = "ext4";
          };
          fileSystems."/boot" = {
            device = "/dev/disk/by-label/ESP";
            fsType = "vfat";
          };
        }
      ];
    };
in
{
  replica-x86_64 = host "x86_64-linux";
  replica-aarch64 = host "aarch64-linux";
}
