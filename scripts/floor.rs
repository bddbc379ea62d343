//! How fast this machine compresses SQL as PlanB does, and nothing else: one half of the floor that
//! `scripts/bench` measures against. Usage: floor FILE LEVEL THREADS; prints CPU seconds, wall seconds, stored bytes.

use std::io::Read;
use std::sync::Mutex;
use std::time::Instant;

use planb::format::member::Packer;

const MEMBER_BYTES: usize = 4 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, level, threads] = &arguments[..4] else {
        unreachable!("four arguments were taken")
    };
    let level: u8 = level.parse().expect("a level");
    let threads: usize = threads.parse().expect("a number of threads");
    let input = Mutex::new(std::fs::File::open(file).expect("a file of SQL"));
    let begun = Instant::now();
    let stored: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| pack(&input, level))).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
    });
    println!("{:.3} {:.3} {stored}", cpu_seconds(), begun.elapsed().as_secs_f64());
}

fn pack(input: &Mutex<std::fs::File>, level: u8) -> u64 {
    let (mut packer, mut raw, mut stored) = (Packer::new(level), Vec::new(), Vec::new());
    let mut total = 0;
    loop {
        raw.clear();
        let read = {
            let mut file = input.lock().expect("no worker panics");
            file.by_ref()
                .take(MEMBER_BYTES as u64)
                .read_to_end(&mut raw)
                .expect("readable")
        };
        if read == 0 {
            return total;
        }
        packer.pack(&raw, &mut stored);
        total += stored.len() as u64;
    }
}

/// User and system time of this process, by the kernel's clock ticks (100 a second).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    let ticks = ticks as f64;
    ticks / 100.0
}
