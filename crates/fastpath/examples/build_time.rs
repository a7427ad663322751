//! How long it takes to write, allocate and assemble all programs: `cargo run --release -p electrode-fastpath --example
//! build_time`. The aim is below 10 ms for the object with all of them. A path as argument gets that object.

use std::time::{Duration, Instant};

use electrode_fastpath::programs::{NAMES, build, object};

const ROUNDS: u32 = 20;

fn main() {
    for name in NAMES {
        let (best, mean, instructions) = time(|| match build(name) {
            Some(Ok(program)) => program.main.insns.len(),
            Some(Err(error)) => panic!("{name}: {error}"),
            None => panic!("there is no program {name}"),
        });
        println!("{name:12} {instructions:6} instructions  best {best:?}, mean {mean:?}");
    }
    let (best, mean, bytes) = time(|| object().unwrap_or_else(|error| panic!("{error}")).len());
    println!(
        "{:12} {bytes:6} bytes         best {best:?}, mean {mean:?}",
        "object"
    );
    if let Some(path) = std::env::args_os().nth(1) {
        let bytes = object().unwrap_or_else(|error| panic!("{error}"));
        if let Err(error) = std::fs::write(&path, bytes) {
            eprintln!("{}: {error}", path.display());
            std::process::exit(1);
        }
    }
}

fn time(mut f: impl FnMut() -> usize) -> (Duration, Duration, usize) {
    let mut best = Duration::MAX;
    let mut result = 0;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        result = f();
        best = best.min(start.elapsed());
    }
    (best, start.elapsed() / ROUNDS, result)
}
