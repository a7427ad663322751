# Configurations of the modules, good and bad, and what comes of them; `cargo xtask nix` compares it with nix/golden.
#   nix-instantiate --eval --strict --json nix/module-cases.nix
let
  standIn = import ./stand-in.nix;
  package = "/usr";

  evaluate =
    settings: kernel:
    standIn.evaluate {
      module = ../nixos-modules/electrode.nix;
      name = "electrode";
      settings = {
        enable = true;
        inherit package;
      }
      // settings;
      inherit kernel package;
    };

  # What a machine would say: the messages of assertions that don't hold, and the warnings.
  complaints =
    settings: kernel:
    let
      evaluated = evaluate settings kernel;
    in
    {
      failed = map (each: each.message) (builtins.filter (each: !each.assertion) evaluated.assertions);
      inherit (evaluated) warnings;
    };

  # Whether evaluating what the service is made of throws, as it does for values of a wrong type.
  refused =
    settings:
    let
      evaluated = evaluate settings "6.12";
      tried = builtins.tryEval (
        builtins.deepSeq [
          evaluated.systemd.services.electrode.serviceConfig
          evaluated.environment.etc."electrode/config.txt".source.text
        ] true
      );
    in
    !tried.success;

  three = map (host: { address = "10.0.0.${toString host}"; }) [
    1
    2
    3
  ];

  good = {
    replicas = three;
    index = 0;
  };

  service =
    settings:
    let
      evaluated = evaluate settings "6.12";
    in
    {
      unit = standIn.renderUnit evaluated.systemd.services.electrode;
      config = evaluated.environment.etc."electrode/config.txt".source.text;
      ports =
        let
          opened = evaluated.networking.firewall.allowedUDPPorts;
        in
        if builtins.isList opened then opened else [ ];
    };

  bench = standIn.evaluate {
    module = ../nixos-modules/bench-client.nix;
    name = "electrode-bench";
    settings = {
      enable = true;
      inherit package;
    };
    kernel = "6.12";
    inherit package;
  };
in
{
  units = {
    plain = service (good // { acceleration = "none"; });
    accelerated = service (
      good
      // {
        acceleration = [
          "broadcast"
          "prepare"
          "prepare-ok"
        ];
        interface = "eth0";
        metrics = "127.0.0.1:9700";
        groupKeyFile = "/run/keys/electrode";
        openFirewall = true;
        timeoutFactor = 2;
        extraArguments = [
          "--log"
          "debug"
        ];
      }
    );
    ipv6 = service {
      index = 1;
      replicas =
        map
          (host: {
            address = "fd00::${toString host}";
            port = 7000 + host;
          })
          [
            1
            2
            3
            4
            5
          ];
    };
    durable = service (
      good
      // {
        durability = "disk";
        readLeases = true;
        stateDirectory = "electrode/locks";
        application = "kv";
      }
    );
    bench = {
      unit = standIn.renderUnit bench.systemd.services.electrode-bench;
    };
  };

  complaints = {
    good = complaints good "6.12";
    even = complaints (good // { replicas = builtins.tail three; }) "6.12";
    indexOutOfRange = complaints (good // { index = 3; }) "6.12";
    sameAddress = complaints (
      good // { replicas = three ++ three ++ [ { address = "10.0.0.9"; } ]; }
    ) "6.12";
    noInterface = complaints (good // { acceleration = "all"; }) "6.12";
    oldKernelAuto = complaints good "5.10";
    oldKernelInsisted = complaints (
      good
      // {
        acceleration = "all";
        interface = "eth0";
      }
    ) "5.10";
  };

  refused = {
    good = refused good;
    unknownOption = refused (good // { replica = 1; });
    noIndex = refused { replicas = three; };
    unknownProgram = refused (good // { acceleration = [ "prepare_ok" ]; });
    unknownApplication = refused (good // { application = "sql"; });
    portTooLarge = refused (
      good
      // {
        replicas = [
          {
            address = "a";
            port = 65536;
          }
        ];
      }
    );
    timeoutFactorZero = refused (good // { timeoutFactor = 0; });
  };
}
