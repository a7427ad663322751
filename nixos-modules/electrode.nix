# One replica of an Electrode group as a systemd service.
self:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.electrode;
  count = builtins.length cfg.replicas;
  f = (count - 1) / 2;
  host = address: if lib.hasInfix ":" address then "[${address}]" else address;
  text = ''
    f ${toString f}
  ''
  + lib.concatMapStrings (replica: ''
    replica ${host replica.address}:${toString replica.port}
  '') cfg.replicas;
  # The binary itself checks the file, while the system is built.
  configFile =
    pkgs.runCommand "electrode-config.txt"
      {
        inherit text;
        passAsFile = [ "text" ];
      }
      ''
        ${lib.getExe cfg.package} check --config "$textPath"
        cp "$textPath" "$out"
      '';
  listed = builtins.isList cfg.acceleration;
  accelerated = cfg.acceleration != "none" && cfg.acceleration != [ ];
  insisted = listed || cfg.acceleration == "all";
  # The word that the command takes.
  acceleration =
    if !listed then
      cfg.acceleration
    else if accelerated then
      lib.concatStringsSep "," cfg.acceleration
    else
      "none";
  # The kernel that the machine will run; programs need 64-bit atomics and are tested from 5.15 on.
  kernel = config.boot.kernelPackages.kernel.version;
  oldKernel = lib.versionOlder kernel "5.15";
  programs = lib.types.enum [
    "broadcast"
    "prepare"
    "prepare-ok"
  ];
  capabilities = lib.optionals accelerated [
    "CAP_BPF"
    "CAP_NET_ADMIN"
    "CAP_PERFMON"
  ];
in
{
  options.services.electrode = {
    enable = lib.mkEnableOption "a replica of an Electrode group";

    package = lib.mkOption {
      type = lib.types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.electrode;
      defaultText = lib.literalExpression "electrode.packages.\${system}.electrode";
      description = "The package that provides the `electrode` command.";
    };

    replicas = lib.mkOption {
      type = lib.types.listOf (
        lib.types.submodule {
          options = {
            address = lib.mkOption {
              type = lib.types.str;
              example = "10.0.0.1";
              description = "The replica's address: a name, IPv4 or IPv6.";
            };
            port = lib.mkOption {
              type = lib.types.port;
              default = 7700;
              description = "The replica's UDP port, for the other replicas and for clients.";
            };
          };
        }
      );
      default = [ ];
      description = "Every replica of the group, in the same order everywhere: 2f+1 of them.";
    };

    index = lib.mkOption {
      type = lib.types.ints.unsigned;
      description = "Which of the replicas this machine is, from 0.";
    };

    interface = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "eth0";
      description = "The interface that the fast path is attached to; null: the one that leads to the other replicas.";
    };

    acceleration = lib.mkOption {
      type = lib.types.either (lib.types.enum [
        "auto"
        "none"
        "all"
      ]) (lib.types.listOf programs);
      default = "auto";
      example = [
        "broadcast"
        "prepare"
      ];
      description = ''
        `auto`: the whole fast path where it is possible, else user space with a warning. `none`: user space. `all`, or a
        list of `broadcast`, `prepare` and `prepare-ok`: what prevents it keeps the replica from starting.
      '';
    };

    durability = lib.mkOption {
      type = lib.types.enum [
        "memory"
        "disk"
      ];
      default = "memory";
      description = ''
        `memory`: a replica that restarts recovers from the others, and the group survives what leaves a majority of its
        processes running. `disk`: nothing is acknowledged before it is on disk, so that the group survives a power cut too.
      '';
    };

    readLeases = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether the primary answers reads alone while its lease holds; needs clocks that run equally fast within an eighth.";
    };

    application = lib.mkOption {
      type = lib.types.enum [
        "kv"
        "null"
      ];
      default = "kv";
      description = "The state machine that is replicated.";
    };

    stateDirectory = lib.mkOption {
      type = lib.types.strMatching "[a-zA-Z0-9_-]+(/[a-zA-Z0-9_-]+)*";
      default = "electrode";
      description = "Where the promised view, the group's name and, with `durability = \"disk\"`, the log are kept, below `/var/lib`.";
    };

    timeoutFactor = lib.mkOption {
      type = lib.types.ints.between 1 100;
      default = 1;
      description = "Multiplies the protocol's time-outs, for slow machines and long distances; the same on all replicas.";
    };

    metrics = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "127.0.0.1:9700";
      description = "Where Prometheus metrics are served; null: nowhere.";
    };

    groupKeyFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "The key that replicas authenticate each other with; it is passed as a systemd credential.";
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to open the replica's UDP port.";
    };

    extraArguments = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      description = "More arguments of `electrode replica`.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = count >= 1 && lib.mod count 2 == 1;
        message = "services.electrode.replicas: a group has 2f+1 replicas (1, 3, 5, ...), not ${toString count}.";
      }
      {
        assertion = cfg.index < count;
        message = "services.electrode.index: ${toString cfg.index} is not one of the ${toString count} replicas (counted from 0).";
      }
      {
        assertion = lib.allUnique (
          map (replica: "${host replica.address}:${toString replica.port}") cfg.replicas
        );
        message = "services.electrode.replicas: two replicas have the same address and port.";
      }
      {
        assertion = !insisted || !accelerated || cfg.interface != null;
        message = "services.electrode.interface: name the interface to accelerate, since acceleration is demanded (or set acceleration to \"auto\").";
      }
      {
        assertion = !insisted || !accelerated || !oldKernel;
        message = "services.electrode.acceleration: demanded, but Linux ${kernel} is older than 5.15; set boot.kernelPackages to a newer one, or acceleration to \"auto\".";
      }
    ];

    warnings = lib.optional (
      cfg.acceleration == "auto" && oldKernel
    ) "services.electrode: Linux ${kernel} is older than 5.15, so the replica runs in user space only.";

    # Commands on this machine find the group's configuration here.
    environment.etc."electrode/config.txt".source = configFile;
    environment.systemPackages = [ cfg.package ];

    networking.firewall.allowedUDPPorts = lib.mkIf cfg.openFirewall [
      (builtins.elemAt cfg.replicas cfg.index).port
    ];

    systemd.services.electrode = {
      description = "Electrode replica ${toString cfg.index}";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      serviceConfig = {
        Type = "notify";
        ExecStart = lib.escapeShellArgs (
          [
            (lib.getExe cfg.package)
            "replica"
            "--config"
            configFile
            "--index"
            (toString cfg.index)
            "--accelerate"
            acceleration
            "--app"
            cfg.application
            "--state-dir"
            "/var/lib/${cfg.stateDirectory}"
            "--durability"
            cfg.durability
            "--timeout-factor"
            (toString cfg.timeoutFactor)
          ]
          ++ lib.optionals (cfg.interface != null) [
            "--interface"
            cfg.interface
          ]
          ++ lib.optionals (cfg.metrics != null) [
            "--metrics"
            cfg.metrics
          ]
          ++ lib.optionals (cfg.groupKeyFile != null) [
            "--group-key-file"
            "/run/credentials/electrode.service/group-key"
          ]
          ++ lib.optional cfg.readLeases "--read-leases"
          ++ cfg.extraArguments
        );
        LoadCredential = lib.optional (cfg.groupKeyFile != null) "group-key:${cfg.groupKeyFile}";
        Restart = "always";
        # An exit by usage or configuration can't be mended by another start.
        RestartPreventExitStatus = 2;
        RestartSec = 1;
        DynamicUser = true;
        StateDirectory = cfg.stateDirectory;
        StateDirectoryMode = "0700";
        AmbientCapabilities = capabilities;
        CapabilityBoundingSet = if accelerated then capabilities else [ "" ];
        LimitMEMLOCK = "infinity";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_NETLINK"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        # bpf is in @privileged and perf_event_open in @debug: denied with their sets, then allowed again.
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
          "~@resources"
          "~@debug"
        ]
        ++ lib.optionals accelerated [
          "bpf"
          "perf_event_open"
        ];
        SystemCallErrorNumber = "EPERM";
        UMask = "0077";
        DevicePolicy = "closed";
        KeyringMode = "private";
        NotifyAccess = "main";
      };
    };
  };
}
