//! What every change has to survive: a thousand groups from seeds, and a few that show one behaviour.

use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use electrode_sim::{Acceleration, Engine, Failure, Plan, Programs, Report, run, run_traced};

fn programs() -> Rc<Programs> {
    Rc::new(Programs::new().expect("the programs that ship load"))
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
    let (next, stored) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures: Mutex<Vec<Failure>> = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let programs = programs();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds() {
                        return;
                    }
                    match run(&Plan::of(seed, 500, Acceleration::Seeded), &programs) {
                        Ok(report) => {
                            assert_eq!(report.requests, 500);
                            stored.fetch_add(report.stored, Ordering::Relaxed);
                        }
                        Err(failure) => failures.lock().expect("no panic with it").push(failure),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic with it");
    for failure in &failures {
        println!("FAILED: {failure}");
        println!(
            "  reproduce: cargo xtask sim --seed {} --trace",
            failure.seed
        );
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
    // The fast path really is one.
    let stored = stored.into_inner();
    assert!(
        stored > 500 * seeds() / 2,
        "kernels stored only {stored} ops"
    );
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
fn without_faults_nobody_changes_the_view_and_kernels_store_every_op() {
    let report = run(&Plan::for_speed(1000), &programs()).unwrap();
    assert_eq!((report.views, report.requests, report.ops), (1, 1000, 1000));
    // Two backups; only what came before they were armed, or overtook its predecessor on the way or on the card's other CPU,
    // goes another way.
    assert!(
        report.stored > 1800,
        "{} ops were stored by kernels",
        report.stored
    );
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
            assert_eq!(report.requests, 200);
        }
    }
}
