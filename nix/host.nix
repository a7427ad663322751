# A machine that is ready to become a replica: the command, the module, a kernel that takes the programs. The group and
# this machine's index are its administrator's to say.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
{
  imports = [ self.nixosModules.electrode ];

  # The newest kernel with long support that this nixpkgs has.
  boot.kernelPackages = lib.mkDefault (pkgs.linuxPackages_6_12 or pkgs.linuxPackages);
  boot.kernelParams = [ "console=ttyS0" ];
  environment.systemPackages = [
    config.services.electrode.package
    pkgs.bpftools
    pkgs.ethtool
  ];
  services.openssh.enable = true;
  networking.hostName = lib.mkDefault "electrode";
  system.stateVersion = lib.mkDefault "24.11";
}
