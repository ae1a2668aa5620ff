//! Digits from a gzip'd CSV file: pixels, then the label, one digit a row.

use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// Digits are 0 to 9.
pub const CLASSES: usize = 10;

/// A data set: file name under `examples/data`, and the value of a white pixel.
pub type Source = (&'static str, f32);

/// 5,000 digits of MNIST, 28×28 pixels.
pub const MNIST: Source = ("mnist_5k.csv.gz", 255.0);
/// 1,797 digits of 8×8 pixels.
#[allow(dead_code)] // the fast test's
pub const DIGITS: Source = ("digits.csv.gz", 16.0);

/// Digits, shuffled and split.
pub struct Digits {
    /// Pixels of one digit.
    pub features: usize,
    /// Four fifths.
    pub train: Vec<Digit>,
    /// One fifth.
    pub test: Vec<Digit>,
}

/// One digit.
pub struct Digit {
    /// 0 (black) to 1 (white).
    pub pixels: Vec<f32>,
    /// What it shows.
    pub label: usize,
}

/// Reads and splits a data set.
pub fn load((name, white): Source, seed: u64) -> Result<Digits, Box<dyn Error>> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "examples", "data", name].iter().collect();
    let mut digits = read(&path, white).map_err(|error| format!("{}: {error}", path.display()))?;
    let features = digits.first().ok_or("no digits")?.pixels.len();
    shuffle(&mut digits, &mut Rng::new(seed));
    let test = digits.split_off(digits.len() * 4 / 5);
    Ok(Digits { features, train: digits, test })
}

fn read(path: &Path, white: f32) -> Result<Vec<Digit>, Box<dyn Error>> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    text.lines()
        .map(|line| {
            let (pixels, label) = line.rsplit_once(',').ok_or("a line without a label")?;
            let pixels: Result<Vec<f32>, _> =
                pixels.split(',').map(|p| p.parse::<f32>().map(|p| p / white)).collect();
            Ok(Digit { pixels: pixels?, label: label.trim().parse()? })
        })
        .collect()
}

/// Fisher and Yates.
pub fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, (rng.next() % (i as u64 + 1)) as usize);
    }
}

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// A generator; every seed is good.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(0x6a09_e667_f3bc_c909))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [-1, 1).
    pub fn symmetric(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}
