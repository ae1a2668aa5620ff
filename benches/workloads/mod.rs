//! Workloads by name, shared by the tests, the benches and the program: models as lists of
//! parameters with the arithmetic that each causes, and sizes of linear layers.
#![allow(dead_code, unused_imports)] // everybody uses a part
#![allow(missing_docs)]

mod language;
mod layers;
mod speech;
mod vision;

pub use layers::{FEW, LARGE, LAYERS, ROUTER, ROW, Shape};

use halfstep::reduce::Param;

/// A parameter, and what it costs to use it.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    pub name: String,
    /// Elements.
    pub len: usize,
    /// Floating-point operations of the forward pass of one sample: two for each multiply-add.
    pub flops: f64,
}

/// A model whose training is measured or simulated.
#[derive(Debug, Clone)]
pub struct Model {
    pub name: &'static str,
    /// Where the sizes come from.
    pub source: &'static str,
    /// What one sample is.
    pub sample: &'static str,
    /// Its plural, for rates.
    pub unit: &'static str,
    /// Whether most of its arithmetic is in convolutions (or else in matrix products).
    pub convolutions: bool,
    /// Samples per rank and step, unless said otherwise.
    pub batch: usize,
    /// In the order in which the forward pass uses them.
    pub weights: Vec<Weight>,
}

impl Model {
    /// Every name that [`Model::named`] knows.
    pub const NAMES: [&str; 5] =
        ["wav2vec2-base", "wav2vec2-large", "llama-3-8b", "unet-52m", "resnet50"];

    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "wav2vec2-base" => speech::wav2vec2_base(),
            "wav2vec2-large" => speech::wav2vec2_large(),
            "llama-3-8b" => language::llama_3_8b(),
            "unet-52m" => vision::unet_52m(),
            "resnet50" => vision::resnet50(),
            _ => return None,
        })
    }

    /// The list to plan buckets for.
    pub fn params(&self) -> Vec<Param> {
        self.weights.iter().map(|weight| Param::new(&weight.name, weight.len)).collect()
    }

    /// Parameters in all.
    pub fn len(&self) -> usize {
        self.weights.iter().map(|weight| weight.len).sum()
    }

    /// Floating-point operations of the forward pass of one sample.
    pub fn forward_flops(&self) -> f64 {
        self.weights.iter().map(|weight| weight.flops).sum()
    }

    /// When each gradient is there if the backward pass takes `seconds`: from the last weight to the
    /// first, each taking time as it takes arithmetic.
    pub fn ready(&self, seconds: f64) -> Vec<f64> {
        let total = self.forward_flops();
        let mut done = 0.0;
        let mut ready = vec![0.0; self.weights.len()];
        for (time, weight) in ready.iter_mut().zip(&self.weights).rev() {
            done += weight.flops;
            *time = seconds * (done / total).min(1.0);
        }
        ready
    }
}

/// Wave2Vec2-base with its CTC head: 213 tensors, 94,396,320 parameters.
pub fn wav2vec2_base_ctc() -> Vec<Param> {
    speech::wav2vec2_base().params()
}

/// A list of weights under construction.
#[derive(Default)]
struct List(Vec<Weight>);

impl List {
    /// A matrix or a filter, each element of which is used `uses` times in a sample.
    fn matrix(&mut self, name: impl Into<String>, len: usize, uses: usize) {
        let flops = 2.0 * len as f64 * uses as f64;
        self.0.push(Weight { name: name.into(), len, flops });
    }

    /// A vector: a bias, a gain, an embedding; its arithmetic is not counted.
    fn vector(&mut self, name: impl Into<String>, len: usize) {
        self.0.push(Weight { name: name.into(), len, flops: 0.0 });
    }

    /// A matrix and its bias.
    fn linear(&mut self, name: &str, input: usize, output: usize, uses: usize) {
        self.matrix(format!("{name}.weight"), input * output, uses);
        self.vector(format!("{name}.bias"), output);
    }

    /// Gain and bias of a normalisation.
    fn norm(&mut self, name: &str, len: usize) {
        self.vector(format!("{name}.weight"), len);
        self.vector(format!("{name}.bias"), len);
    }

    /// Arithmetic without weights of its own (scores of attention), done just after the last.
    fn extra(&mut self, flops: f64) {
        if let Some(last) = self.0.last_mut() {
            last.flops += flops;
        }
    }
}
