//! Wave2Vec2 (Baevski et al., 2020) with a CTC head.

use super::{List, Model};

/// Samples of sound in the example: 10 s at 16 kHz.
const SOUND: usize = 160_000;
/// Kernel and stride of the feature encoder's convolutions.
const CONVOLUTIONS: [(usize, usize); 7] = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)];

/// Source: `Wav2Vec2ForCTC(Wav2Vec2Config())` of the transformers library, `named_parameters()`.
pub fn wav2vec2_base() -> Model {
    model("wav2vec2-base", 768, 12, 8)
}

/// Source: the configuration of facebook/wav2vec2-large, as above.
pub fn wav2vec2_large() -> Model {
    model("wav2vec2-large", 1024, 24, 4)
}

fn model(name: &'static str, hidden: usize, layers: usize, batch: usize) -> Model {
    let mut list = List::default();
    list.vector("masked_spec_embed", hidden);
    let (mut channels, mut frames) = (1, SOUND);
    for (layer, (kernel, stride)) in CONVOLUTIONS.into_iter().enumerate() {
        frames = (frames - kernel) / stride + 1;
        list.matrix(format!("conv{layer}.weight"), 512 * channels * kernel, frames);
        if layer == 0 {
            list.norm("conv0.norm", 512);
        }
        channels = 512;
    }
    list.norm("projection.norm", 512);
    list.linear("projection", 512, hidden, frames);
    list.vector("position.bias", hidden);
    list.vector("position.gain", 128);
    list.matrix("position.direction", hidden * (hidden / 16) * 128, frames);
    list.norm("encoder.norm", hidden);
    for layer in 0..layers {
        for matrix in ["key", "value", "query", "out"] {
            list.linear(&format!("layer{layer}.{matrix}"), hidden, hidden, frames);
        }
        // q·kᵀ and p·v
        list.extra(4.0 * (frames * frames * hidden) as f64);
        list.norm(&format!("layer{layer}.norm1"), hidden);
        list.linear(&format!("layer{layer}.up"), hidden, 4 * hidden, frames);
        list.linear(&format!("layer{layer}.down"), 4 * hidden, hidden, frames);
        list.norm(&format!("layer{layer}.norm2"), hidden);
    }
    list.linear("lm_head", hidden, 32, frames);
    Model {
        name,
        source: "Wav2Vec2ForCTC of the transformers library",
        sample: "10 s of sound at 16 kHz",
        unit: "clips",
        convolutions: false,
        batch,
        weights: list.0,
    }
}
