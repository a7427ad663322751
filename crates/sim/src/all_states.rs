//! `electrode-sim --exhaustive`: all states of a small group, instead of seeds.

use std::time::Instant;

use electrode_sim::{Bounds, Explored, explore};

/// Explores, tells how far it got, and whether everything held and everything within the bounds was reached.
pub(crate) fn run(bounds: &Bounds) -> bool {
    let begun = Instant::now();
    println!(
        "{} replicas, all accelerated, {} clients of {} requests, {} view changes, {} crashes, window {}; at most {} programs that stand still, \
         {} packets around the programs, {} retry timers that change something",
        bounds.replicas,
        bounds.clients,
        bounds.ops,
        bounds.view_changes,
        bounds.crashes,
        bounds.window,
        bounds.standing,
        bounds.around,
        bounds.resends
    );
    let outcome = explore(bounds, |explored| {
        eprintln!(
            "{:>7.0} s  {}",
            begun.elapsed().as_secs_f64(),
            describe(explored)
        );
    });
    let seconds = begun.elapsed().as_secs_f64();
    match outcome {
        Ok(explored) => {
            println!("{} in {seconds:.1} s", describe(&explored));
            if explored.complete {
                println!("all states within the bounds were reached, and everything held");
            } else {
                println!("GIVEN UP: there are more states; what was reached held");
            }
            explored.complete
        }
        Err(found) => {
            for (number, step) in found.steps.iter().enumerate() {
                println!("{:>4}  {step}", number + 1);
            }
            println!("FAILED: {found}");
            println!("  {} in {seconds:.1} s", describe(&found.explored));
            false
        }
    }
}

fn describe(explored: &Explored) -> String {
    format!(
        "{} states ({} of them again, {} but for messages, {} left), {} transitions, depth {}, {} states of replicas, {} messages, {} sets of them, {} pairs of both, {} pasts, up to op {} committed and view {} entered",
        explored.states,
        explored.again,
        explored.keys,
        explored.left,
        explored.transitions,
        explored.depth,
        explored.replica_states,
        explored.messages,
        explored.sets,
        explored.menus,
        explored.pasts,
        explored.highest.0,
        explored.highest.1
    )
}
