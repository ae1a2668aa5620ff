//! The demonstration's training loop on the small digits: every primitive together, in seconds.
#![allow(missing_docs)]
#![allow(dead_code)] // the demonstration uses the rest

#[path = "../examples/train_mnist/data.rs"]
mod data;
#[path = "../examples/train_mnist/loss.rs"]
mod loss;
#[path = "../examples/train_mnist/mode.rs"]
mod mode;
#[path = "../examples/train_mnist/network.rs"]
mod network;
#[path = "../examples/train_mnist/rank.rs"]
mod rank;
#[path = "../examples/train_mnist/run.rs"]
mod run;

use approx::assert_abs_diff_eq;
use mode::Mode;
use run::{Outcome, Settings};

fn settings(lr: f64) -> Settings {
    Settings { layers: vec![64, 128, 64, 10], ranks: 2, batch: 64, epochs: 15, lr, seed: 1 }
}

fn train(mode: Mode, settings: &Settings) -> Outcome {
    let digits = data::load(data::DIGITS, 0).unwrap();
    run::run(mode, settings, &digits, &|_| {}).unwrap()
}

/// At a common learning rate every mode learns to read.
#[test]
fn every_mode_learns_to_read_digits() {
    for mode in Mode::ALL {
        let outcome = train(mode, &settings(1e-3));
        println!("{mode}: {:.4}, {} steps skipped", outcome.accuracy, outcome.skipped);
        assert!(outcome.accuracy >= 0.95, "{mode}: {}", outcome.accuracy);
    }
}

/// At a small one, rounding weights to the nearest bf16 loses what masters and stochastic rounding
/// keep.
#[test]
fn small_updates_survive_everywhere_but_in_nearest_rounding() {
    let settings = Settings { epochs: 40, ..settings(3e-5) };
    let reference = train(Mode::F32, &settings).accuracy;
    for mode in [Mode::Bf16Master, Mode::Bf16Stochastic, Mode::F16Scaler] {
        let accuracy = train(mode, &settings).accuracy;
        println!("{mode}: {accuracy:.4} (f32: {reference:.4})");
        assert_abs_diff_eq!(accuracy, reference, epsilon = 0.04);
    }
    let lost = train(Mode::Bf16Nearest, &settings).accuracy;
    println!("bf16+rn: {lost:.4}");
    assert!(lost < reference - 0.2, "{lost}, f32: {reference}");
}

/// Same seed, same bits; the number of ranks changes them only by rounding.
#[test]
fn runs_repeat_to_the_bit() {
    let settings = Settings { epochs: 2, ..settings(1e-3) };
    for mode in [Mode::Bf16Stochastic, Mode::F16Scaler] {
        assert_eq!(train(mode, &settings).hash, train(mode, &settings).hash);
        let other = Settings { seed: 2, ..settings_of(&settings) };
        assert_ne!(train(mode, &settings).hash, train(mode, &other).hash);
    }
    // Batches that do not divide among ranks: weights make it the same average.
    let one = train(Mode::F32, &Settings { ranks: 1, ..settings_of(&settings) });
    let three = train(Mode::F32, &Settings { ranks: 3, ..settings_of(&settings) });
    let difference = one.losses.last().unwrap() - three.losses.last().unwrap();
    assert_abs_diff_eq!(one.accuracy, three.accuracy, epsilon = 0.02);
    assert!(difference.abs() < 0.2, "rank 0's loss is over its own rows: {difference}");
}

fn settings_of(s: &Settings) -> Settings {
    Settings { layers: s.layers.clone(), ..*s }
}
