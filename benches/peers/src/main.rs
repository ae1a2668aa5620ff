//! One peer as a process: reads commands, one a line, makes a case, runs it, says how long it took.
//! `halfstep-peers PEER THREADS`; the driver is `compare.py`, which speaks the same words to the Python peers.
//!
//! | command | answer |
//! |---|---|
//! | `make CASE…` | `ok` and four of the elements that one call gave, or `no` and why |
//! | `run N` | seconds of one call, over N of them |
//! | `roof flops\|read\|copy\|update` | per second, by all threads |
//! | `lengths MODEL` | of its parameters |
//! | `drop` | `ok` |

mod burn;
mod candle;
mod case;
mod data;
mod faer_crate;
mod gemm_crate;
mod half_crate;
mod matrixmultiply_crate;
mod ours;
mod roof;
#[path = "../../workloads/mod.rs"]
mod workloads;

use std::io::{BufRead, Write};
use std::time::Instant;

use case::{Case, Peer, Work};

fn peer(name: &str, threads: usize) -> Option<Box<dyn Peer>> {
    Some(match name {
        "halfstep" => Box::new(ours::Ours::new(threads, false)),
        "halfstep-chain" => Box::new(ours::Ours::new(threads, true)),
        "gemm" => Box::new(gemm_crate::GemmCrate { threads }),
        "matrixmultiply" => Box::new(matrixmultiply_crate::MatrixMultiply),
        "faer" => Box::new(faer_crate::Faer { threads }),
        "burn" => Box::new(burn::Burn),
        "candle" => Box::new(candle::Candle),
        "half" => Box::new(half_crate::Half { threads }),
        _ => return None,
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let threads: usize = arguments.get(2).and_then(|n| n.parse().ok()).unwrap_or(1);
    let Some(peer) = arguments.get(1).and_then(|name| peer(name, threads)) else {
        eprintln!("usage: halfstep-peers PEER THREADS");
        std::process::exit(2);
    };
    // The crates whose threads are rayon's take this many.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("the first pool");
    let mut roof = None;
    let mut work: Option<Box<dyn Work>> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("commands are text");
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["make", case @ ..] => {
                work = None;
                match Case::parse(case).and_then(|case| peer.make(&case)) {
                    Ok(mut made) => {
                        made.run();
                        let values = made.look();
                        work = Some(made);
                        let words: Vec<String> = values.iter().map(f64::to_string).collect();
                        format!("ok {}", words.join(" "))
                    }
                    Err(why) => format!("no {why}"),
                }
            }
            ["run", calls] => match (&mut work, calls.parse::<usize>()) {
                (Some(work), Ok(calls)) => {
                    let start = Instant::now();
                    (0..calls).for_each(|_| work.run());
                    (start.elapsed().as_secs_f64() / calls as f64).to_string()
                }
                _ => "no case".into(),
            },
            ["roof", kind] => {
                roof.get_or_insert_with(roof::Roof::new).measure(kind, threads).to_string()
            }
            ["lengths", model] => {
                let model = workloads::Model::named(model).expect("a model of the workloads");
                let lengths: Vec<String> =
                    model.weights.iter().map(|w| w.len.to_string()).collect();
                lengths.join(" ")
            }
            ["drop"] => {
                work = None;
                "ok".into()
            }
            _ => "no such command".into(),
        };
        println!("{answer}");
        std::io::stdout().flush().expect("someone listens");
    }
}
