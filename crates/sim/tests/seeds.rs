//! What every change has to survive: a thousand groups from seeds, and a few that show one behaviour.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use electrode_sim::{Acceleration, Engine, Failure, Plan, Programs, Report, run, run_traced};

fn programs() -> Rc<Programs> {
    Rc::new(Programs::new().expect("the programs that ship load"))
}

/// Runs plans on every CPU, and demands that all hold.
fn all_hold(plan: impl Fn(u64) -> Plan + Sync, flags: &str, seeds: u64) -> Vec<Report> {
    let next = AtomicU64::new(0);
    let reports: Mutex<Vec<Report>> = Mutex::new(Vec::new());
    let failures: Mutex<Vec<Failure>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let programs = programs();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    match run(&plan(seed), &programs) {
                        Ok(report) => reports.lock().expect("no panic with it").push(report),
                        Err(failure) => failures.lock().expect("no panic with it").push(failure),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic with it");
    for failure in &failures {
        println!("FAILED: {failure}");
        println!("  {}", failure.state);
        println!(
            "  reproduce: cargo xtask sim --seed {} {flags}--trace",
            failure.seed
        );
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
    reports.into_inner().expect("no panic with it")
}

/// Groups of 3, 5 and 7 whose one client asks the same with and without the fast path.
const R7_SEEDS: &[u64] = &[9, 24_001, 24_002, 24_003, 24_007, 24_008];

/// Whether every request was answered, or ended with its session.
fn all_ended(report: &Report, requests: u64) -> bool {
    report.requests + report.unknown == requests
}

/// `SIM_SEEDS` asks for another number.
fn seeds() -> u64 {
    std::env::var("SIM_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000)
}

#[test]
fn a_thousand_groups_survive_their_faults_and_work_again() {
    let plan = |seed| Plan::of(seed, 500, Acceleration::Seeded);
    let reports = all_hold(plan, "", seeds());
    assert!(reports.iter().all(|report| all_ended(report, 500)));
    // The fast path really is one, disks really are used, and what may happen to them happens.
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let stored = sum(|report| report.stored);
    assert!(
        stored > 500 * seeds() / 2,
        "kernels stored only {stored} ops"
    );
    if seeds() >= 1000 {
        assert!(sum(|report| u64::from(report.on_disk)) > 200);
        assert!(sum(|report| u64::from(report.replicas == 5)) > 100);
        assert!(sum(|report| u64::from(report.replicas == 7)) > 30);
        assert!(sum(|report| report.reads) > 50_000);
        let faults = [
            ("power cuts", sum(|report| report.power_cuts)),
            ("disks that failed", sum(|report| report.disk_failures)),
            ("damaged logs", sum(|report| report.damaged_logs)),
            ("sessions that expired", sum(|report| report.expired)),
            ("clogs", sum(|report| report.clogs)),
            ("foreign packets", sum(|report| report.foreign)),
        ];
        for (what, count) in faults {
            assert!(count > 5, "{count} {what}");
        }
    }
}

/// Seeds of their own for each, so that no group of the thousand runs twice.
fn some(first: u64, flags: &str, plan: impl Fn(u64) -> Plan + Sync) {
    let flags = format!("--requests 300 {flags} ");
    let reports = all_hold(|seed| plan(first + seed), &flags, 30.min(seeds()));
    assert!(reports.iter().all(|report| all_ended(report, 300)));
}

#[test]
fn groups_survive_faults_and_work_again_in_user_space() {
    some(20_000, "--accelerate none --durability memory", |seed| {
        Plan::of(seed, 300, Acceleration::None).in_memory()
    });
}

#[test]
fn groups_survive_faults_and_work_again_on_the_fast_path() {
    some(21_000, "--accelerate all --durability memory", |seed| {
        Plan::of(seed, 300, Acceleration::All).in_memory()
    });
}

#[test]
fn groups_on_disk_lose_nothing_whoever_crashes_in_user_space() {
    some(22_000, "--accelerate none --durability disk", |seed| {
        Plan::of(seed, 300, Acceleration::None).on_disk()
    });
}

#[test]
fn groups_on_disk_lose_nothing_whoever_crashes_on_the_fast_path() {
    some(23_000, "--accelerate all --durability disk", |seed| {
        Plan::of(seed, 300, Acceleration::All).on_disk()
    });
}

#[test]
fn r7_the_same_order_of_ops_gives_the_same_replies_log_and_state_with_and_without_the_fast_path() {
    let programs = programs();
    let mut stored = 0;
    for (seed, on_disk) in R7_SEEDS
        .iter()
        .flat_map(|seed| [(*seed, false), (*seed, true)])
    {
        let plan = |acceleration| {
            let plan = Plan::of(seed, 200, acceleration).one_client();
            match on_disk {
                true => plan.on_disk(),
                false => plan.in_memory(),
            }
        };
        let [plain, fast] = [Acceleration::None, Acceleration::All].map(|acceleration| {
            run(&plan(acceleration), &programs)
                .unwrap_or_else(|failure| panic!("{acceleration:?}: {failure}"))
        });
        let of = |report: &Report| (report.ops, report.digest, report.state, report.replies);
        assert_eq!(of(&plain), of(&fast), "seed {seed}, on disk: {on_disk}");
        assert_eq!((plain.ops, plain.requests, plain.stored), (200, 200, 0));
        stored += fast.stored;
    }
    assert!(stored > 200 * 2 * R7_SEEDS.len() as u64 / 2, "{stored}");
}

#[test]
fn a_seed_reproduces_its_run_exactly() {
    let programs = programs();
    let of = |report: &Report| {
        (
            report.digest,
            report.packets,
            report.steps,
            report.simulated,
            report.stored,
        )
    };
    for seed in [1, 5, 9] {
        let plan = Plan::of(seed, 200, Acceleration::Seeded);
        let (one, two) = (
            run(&plan, &programs).unwrap(),
            run(&plan, &programs).unwrap(),
        );
        assert_eq!(of(&one), of(&two), "seed {seed}");
        let traced = run_traced(&plan, &programs, 20);
        assert_eq!(
            of(&traced.outcome.unwrap()),
            of(&one),
            "seed {seed}, traced"
        );
        assert!(
            traced.timeline.contains("normal in view 0"),
            "{}",
            traced.timeline
        );
        assert!(traced.diagram.contains("<svg") && traced.diagram.contains("replica 0"));
    }
}

/// Verdicts, packets, maps and ring records of whole programs: one that differed would show in everything that follows.
#[test]
fn rbpf_and_the_interpreter_make_the_same_history_of_a_seed() {
    let programs = programs();
    let mut stored = 0;
    for seed in 0..4 {
        let plan = Plan::of(seed, 40, Acceleration::All);
        let [one, two] = [Engine::Whole, Engine::Rbpf].map(|engine| {
            run(&plan.clone().on(engine), &programs)
                .unwrap_or_else(|failure| panic!("{engine:?}: {failure}"))
        });
        let of = |report: &Report| format!("{report:?}");
        assert_eq!(of(&one), of(&two), "seed {seed}");
        stored += one.stored;
    }
    assert!(stored > 80, "programs stored only {stored} ops");
}

#[test]
fn without_faults_nobody_changes_the_view_and_kernels_store_every_op_that_overtakes_no_other() {
    let report = run(&Plan::for_speed(1000), &programs()).unwrap();
    assert_eq!((report.views, report.requests, report.ops), (1, 1000, 1000));
    // Two backups. A Prepare that overtook its predecessor on the network or on the card's other CPU is passed up, and user
    // space claims it when the gap is filled, unless it came once more meanwhile and the kernel took it then. That, and
    // nothing else, goes around the kernel.
    assert_eq!(report.stored + report.claimed, 2 * report.ops, "{report:?}");
    assert!(report.claims <= report.overtook, "{report:?}");
    assert!(report.claimed < report.stored / 4, "{report:?}");
    assert!(report.kernel_answers >= report.stored / 64);
}

#[test]
fn r7_the_same_plan_works_with_and_without_the_fast_path() {
    let programs = programs();
    for seed in 0..6 {
        for acceleration in [Acceleration::None, Acceleration::All] {
            let plan = Plan::of(seed, 200, acceleration);
            let report = run(&plan, &programs)
                .unwrap_or_else(|failure| panic!("{acceleration:?}: {failure}"));
            assert!(all_ended(&report, 200), "{report:?}");
        }
    }
}
