//! LLaMA 3 (Grattafiori et al., 2024).

use super::{List, Model};

/// Tokens of one sequence.
const TOKENS: usize = 4096;

/// Source: the published configuration of Meta-Llama-3-8B: 291 tensors, 8,030,261,248 parameters.
pub fn llama_3_8b() -> Model {
    let (hidden, inner, keys, words) = (4096, 14_336, 1024, 128_256);
    let mut list = List::default();
    list.vector("embed_tokens", words * hidden);
    for layer in 0..32 {
        let mut matrix = |name: &str, len| list.matrix(format!("layer{layer}.{name}"), len, TOKENS);
        matrix("q_proj", hidden * hidden);
        matrix("k_proj", keys * hidden);
        matrix("v_proj", keys * hidden);
        matrix("o_proj", hidden * hidden);
        // q·kᵀ and p·v, half of each is masked
        list.extra(2.0 * (TOKENS * TOKENS * hidden) as f64);
        let mut matrix = |name: &str, len| list.matrix(format!("layer{layer}.{name}"), len, TOKENS);
        matrix("gate_proj", inner * hidden);
        matrix("up_proj", inner * hidden);
        matrix("down_proj", hidden * inner);
        list.vector(format!("layer{layer}.input_norm"), hidden);
        list.vector(format!("layer{layer}.attention_norm"), hidden);
    }
    list.vector("norm", hidden);
    list.matrix("lm_head", words * hidden, TOKENS);
    Model {
        name: "llama-3-8b",
        source: "the published configuration of Meta-Llama-3-8B",
        sample: "a sequence of 4096 tokens",
        unit: "sequences",
        convolutions: false,
        batch: 1,
        weights: list.0,
    }
}
