//! Who may import whom. The one table; `ARCHITECTURE.md` says why.

/// A package of the workspace, the packages of it that it may depend on, and others that it never may.
pub(crate) struct Edges {
    pub(crate) package: &'static str,
    pub(crate) may: &'static [&'static str],
    pub(crate) never: &'static [&'static str],
}

/// What a crate without I/O has no business with.
const EFFECTS: &[&str] = &[
    "aya",
    "nix",
    "rustix",
    "smol",
    "tokio",
    "rand",
    "netlink-sys",
];

/// What keeps the simulator deterministic.
const NEVER_IN_SIM: &[&str] = &["aya", "smol", "tokio"];

/// Programs are loaded in two places only: the data plane, and the lab for its own.
const LOADERS: &[&str] = &["aya", "aya-obj"];

macro_rules! edges {
    ($($package:literal may [$($may:literal),*] never $never:expr;)*) => {
        pub(crate) const EDGES: &[Edges] = &[$(
            Edges { package: $package, may: &[$($may),*], never: $never },
        )*];
    };
}

edges! {
    "bpf-asm" may [] never EFFECTS;
    "electrode-vr" may [] never EFFECTS;
    "electrode-wire" may ["electrode-vr"] never EFFECTS;
    "electrode-config" may ["electrode-vr"] never EFFECTS;
    "electrode-apps" may ["electrode-vr"] never EFFECTS;
    "electrode-journal" may ["electrode-vr"] never EFFECTS;
    "electrode-fastpath" may ["bpf-asm", "electrode-vr", "electrode-wire"] never EFFECTS;
    "electrode-driver" may ["electrode-fastpath", "electrode-vr", "electrode-wire"] never EFFECTS;
    "electrode-dataplane" may ["bpf-asm", "electrode-fastpath", "electrode-vr", "electrode-wire"] never &["smol", "tokio"];
    "electrode-replica" may [
        "electrode-apps", "electrode-config", "electrode-dataplane", "electrode-driver", "electrode-fastpath",
        "electrode-journal", "electrode-vr", "electrode-wire"
    ] never LOADERS;
    "electrode-client" may ["electrode-config", "electrode-vr", "electrode-wire"] never LOADERS;
    "electrode-lab" may ["bpf-asm"] never &["smol", "tokio"];
    "electrode-sim" may [
        "bpf-asm", "electrode-apps", "electrode-driver", "electrode-fastpath", "electrode-journal", "electrode-vr",
        "electrode-wire"
    ] never NEVER_IN_SIM;
    "electrode-chaos" may [
        "bpf-asm", "electrode-client", "electrode-lab", "electrode-replica", "electrode-sim", "electrode-vr",
        "electrode-wire"
    ] never LOADERS;
    "electrode" may [
        "bpf-asm", "electrode-apps", "electrode-client", "electrode-config", "electrode-dataplane",
        "electrode-fastpath", "electrode-lab", "electrode-replica", "electrode-sim", "electrode-vr", "electrode-wire"
    ] never &["tokio"];
    "xtask" may [] never &[];
}
