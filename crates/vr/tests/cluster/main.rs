//! Whole groups in memory: seeded faults, checks after every step, and progress once the faults are over.

mod checks;
mod client;
mod disk;
mod kernel;
mod machine;
mod random;
mod world;

use electrode_vr::{Limits, Role, Status};

use random::Random;
use world::{MS, Plan, World};

fn plan(seed: u64, fast_path: bool) -> Plan {
    planned(seed, fast_path, false)
}

fn planned(seed: u64, fast_path: bool, disk: bool) -> Plan {
    let mut random = Random::new(seed ^ 0xfeed);
    let limits = Limits {
        op_bytes: 1024,
        batch_bytes: 100 + random.index(200),
        batch_ops: 1 + random.index(4),
        window: 1 + random.index(4),
        queue: 16,
        checkpoint_ops: 8 + random.below(40),
        sessions: 64,
        session_requests: 8,
        chunk_bytes: 64 + random.index(400),
    };
    let harsh = random.below(3);
    let replicas = if random.chance(250) { 5 } else { 3 };
    Plan {
        seed,
        replicas,
        plain: random.chance(200).then(|| random.index(replicas)),
        fast_path,
        disk,
        clients: 2 + random.index(3),
        reads: random.chance(500),
        lease: [20 * MS, 90 * MS][random.index(2)],
        limits,
        loss: [0, 20, 120][usize::try_from(harsh).unwrap()],
        duplication: random.below(100),
        delay: [MS / 10, MS, 4 * MS][random.index(3)],
        sudden_death: [0, 200, 2000][random.index(3)],
        fault_gap: [30 * MS, 90 * MS, 200 * MS][random.index(3)],
        explicit_bootstrap: random.chance(700),
    }
}

/// One thing goes wrong, or is repaired.
fn fault(world: &mut World) {
    let n = world.plan.replicas;
    // Half of what goes wrong happens to a primary.
    let leading = (0..n).find(|node| {
        world.nodes[*node].replica.as_ref().is_some_and(|replica| {
            let now = replica.snapshot();
            now.status == Status::Normal && now.role == Role::Primary
        })
    });
    let anybody = world.random.index(n);
    let victim = leading
        .filter(|_| world.random.chance(500))
        .unwrap_or(anybody);
    match world.random.below(10) {
        0 | 1 => {
            let after = MS + world.random.below(150 * MS);
            if world.nodes[victim].replica.is_some() && world.may_crash() {
                world.crash(victim, after);
            }
        }
        2 => {
            for other in 0..n {
                world.cut[victim][other] = true;
                world.cut[other][victim] = true;
            }
        }
        3 => {
            world.cut[victim][anybody] = true;
        }
        4 => {
            let side: Vec<bool> = (0..n).map(|_| world.random.chance(500)).collect();
            for from in 0..n {
                for to in 0..n {
                    world.cut[from][to] = side[from] != side[to];
                }
            }
        }
        5 if world.formed => power_cut(world),
        6 if world.plan.disk && world.may_lose_log() => {
            let after = MS + world.random.below(50 * MS);
            world.crash(victim, after);
            world.nodes[victim].log = disk::Disk::default();
        }
        5 | 6 => {
            world.nodes[victim].paused_until = world.now + world.random.below(200 * MS);
        }
        _ => world.cut.iter_mut().for_each(|row| row.fill(false)),
    }
}

/// All machines at once.
fn power_cut(world: &mut World) {
    for node in 0..world.plan.replicas {
        if world.nodes[node].replica.is_some() {
            let after = MS + world.random.below(50 * MS);
            world.crash(node, after);
        }
    }
}

/// Runs a group through a second and a half of faults, then demands that it works.
fn run(plan: Plan) {
    let mut world = World::new(plan);
    // The first start needs all of them, but not a good network.
    world.calm = world.random.chance(500);
    world.run_until(200 * MS);
    world.calm = false;
    let mut at = world.now;
    while world.now < 1500 * MS {
        at += 5 * MS + world.random.below(world.plan.fault_gap);
        world.run_until(at);
        fault(&mut world);
    }
    heal(&mut world);
    demand_progress(&mut world);
}

fn heal(world: &mut World) {
    world.calm = true;
    world.cut.iter_mut().for_each(|row| row.fill(false));
    for node in 0..world.plan.replicas {
        world.nodes[node].paused_until = 0;
        if world.nodes[node].replica.is_none() {
            world.start(node);
        }
    }
}

fn demand_progress(world: &mut World) {
    // A packet may still be 100 ms late, and time-outs may have backed off.
    let deadline = world.now + 4000 * MS;
    world.run_until(world.now + 100 * MS);
    while world.now < deadline && !world.works() {
        world.run_until(world.now + 20 * MS);
    }
    let before: Vec<u64> = world.clients.iter().map(|client| client.done).collect();
    let commit = world.commit();
    world.run_until(world.now + 300 * MS);
    for (client, before) in world.clients.iter().zip(before) {
        assert!(
            client.done > before,
            "a client makes no progress after healing"
        );
    }
    assert!(
        world.commit() > commit,
        "nothing is committed after healing"
    );
    world
        .clients
        .iter_mut()
        .for_each(|client| client.stopped = true);
    world.run_until(world.now + 300 * MS);
    assert!(
        world.clients.iter().all(client::Client::idle),
        "a request stays without answer"
    );
    let replicas: Vec<_> = world
        .nodes
        .iter()
        .map(|node| node.replica.as_ref().expect("all are up"))
        .collect();
    let first = replicas[0].snapshot();
    for (node, replica) in replicas.iter().enumerate() {
        let now = replica.snapshot();
        assert_eq!(now.status, Status::Normal, "{:?}", now.reason);
        assert_eq!(
            now.armed,
            world.plan.has_kernel(node),
            "the fast path isn't what it was"
        );
        assert_eq!(
            (now.view, now.op, now.commit),
            (first.view, first.op, first.op)
        );
        assert_eq!(
            (now.log_digest, now.state_digest),
            (first.log_digest, first.state_digest)
        );
        world.checks.nothing_lost(replica.machine());
    }
    if std::env::var_os("SEEDS").is_some() {
        let (ops, views) = (first.op, world.checks.view_changes.len());
        eprintln!(
            "seed {}: {ops} ops, {views} views, {:?}",
            world.plan.seed, world.warnings
        );
    }
}

/// A quiet group without faults, normal in view 0.
fn quiet(seed: u64, fast_path: bool) -> World {
    let calm = Plan {
        loss: 0,
        duplication: 0,
        sudden_death: 0,
        plain: None,
        lease: 20 * MS,
        ..plan(seed, fast_path)
    };
    let mut world = World::new(calm);
    world.calm = true;
    world.run_until(200 * MS);
    assert!(world.works());
    world
}

#[test]
fn a_primary_that_can_speak_but_not_hear_is_replaced() {
    for fast_path in [false, true] {
        let mut world = quiet(5, fast_path);
        for other in 1..world.plan.replicas {
            world.cut[other][0] = true;
        }
        let commit = world.commit();
        world.run_until(world.now + 500 * MS);
        assert!(world.commit() > commit, "the others go on without it");
    }
}

#[test]
fn an_isolated_backup_that_comes_back_deposes_nobody() {
    for fast_path in [false, true] {
        let mut world = quiet(6, fast_path);
        let lonely = world.plan.replicas - 1;
        for other in 0..lonely {
            world.cut[other][lonely] = true;
            world.cut[lonely][other] = true;
        }
        world.run_until(world.now + 1000 * MS);
        world.cut.iter_mut().for_each(|row| row.fill(false));
        world.run_until(world.now + 300 * MS);
        assert_eq!(world.checks.view_changes.len(), 1, "view 0 is the only one");
        demand_progress(&mut world);
    }
}

#[test]
fn a_dead_primary_is_replaced_in_a_few_time_outs() {
    for (seed, fast_path) in [(7, false), (8, true)] {
        let mut world = quiet(seed, fast_path);
        world.crash(0, 5000 * MS);
        let commit = world.commit();
        // Three times the view-change time-out of this group, of which one passes before anybody doubts.
        world.run_until(world.now + 120 * MS);
        assert!(world.commit() > commit, "view 1 works");
    }
}

#[test]
fn r7_the_same_order_of_ops_gives_the_same_log_with_and_without_the_fast_path() {
    let [plain, fast] = [false, true].map(|fast_path| {
        let one_client = Plan {
            loss: 50,
            duplication: 50,
            sudden_death: 0,
            plain: None,
            clients: 1,
            reads: false,
            ..plan(9, fast_path)
        };
        let mut world = World::new(one_client);
        world.run_until(800 * MS);
        world.checks.committed
    });
    assert!(
        plain.len().min(fast.len()) > 50,
        "{} and {} ops",
        plain.len(),
        fast.len()
    );
    for (op, digest) in plain {
        assert_eq!(*fast.get(&op).unwrap_or(&digest), digest, "op {op}");
    }
}

fn seeds(first: u64, default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SEED").unwrap_or(first);
    first..first + number("SEEDS").unwrap_or(default)
}

fn run_seeds(range: std::ops::Range<u64>, fast_path: bool, disk: bool) {
    for seed in range {
        let plan = planned(seed, fast_path, disk);
        let text = format!("{plan:?}");
        if std::panic::catch_unwind(|| run(plan)).is_err() {
            panic!("failed with {text}");
        }
    }
}

#[test]
fn groups_survive_faults_and_work_again_in_user_space() {
    run_seeds(seeds(0, 250), false, false);
}

#[test]
fn groups_survive_faults_and_work_again_on_the_fast_path() {
    run_seeds(seeds(1000, 400), true, false);
}

#[test]
fn groups_on_disk_lose_nothing_whoever_crashes_in_user_space() {
    run_seeds(seeds(3000, 150), false, true);
}

#[test]
fn groups_on_disk_lose_nothing_whoever_crashes_on_the_fast_path() {
    run_seeds(seeds(4000, 250), true, true);
}

#[test]
fn after_a_power_cut_of_all_at_once_every_acknowledged_op_is_there() {
    for (seed, fast_path) in [(10, false), (11, true)] {
        let calm = Plan {
            disk: true,
            loss: 0,
            duplication: 0,
            sudden_death: 0,
            plain: None,
            ..plan(seed, fast_path)
        };
        let mut world = World::new(calm);
        world.calm = true;
        world.run_until(200 * MS);
        let acknowledged = world.checks.acknowledged.len();
        assert!(acknowledged > 50, "{acknowledged} were acknowledged");
        power_cut(&mut world);
        world.run_until(world.now + 500 * MS);
        demand_progress(&mut world);
    }
}
