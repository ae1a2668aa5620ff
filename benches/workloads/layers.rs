//! Linear layers that are measured, by name: rows (tokens) × input features × output features.

/// A layer of a name, M×K×N.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub rows: usize,
    pub input: usize,
    pub output: usize,
}

const fn shape(name: &'static str, rows: usize, input: usize, output: usize) -> Shape {
    Shape { name, rows, input, output }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}×{}", self.rows, self.input, self.output)
    }
}

/// Of which every kind of product is measured: squares; the first layer of an MLP of Wave2Vec2-base, for a batch and for a
/// short one; odd in every dimension.
pub const LAYERS: [Shape; 5] = [
    shape("square-1024", 1024, 1024, 1024),
    shape("wav2vec2-base-mlp", 2048, 768, 3072),
    shape("square-512", 512, 512, 512),
    shape("wav2vec2-base-mlp-short", 128, 768, 3072),
    shape("odd", 1000, 777, 333),
];

/// Beyond the caches of most processors, in bf16: the same layer of Wave2Vec2-large, and the gate of LLaMA 3 8B for a part
/// of a sequence.
pub const LARGE: [Shape; 2] =
    [shape("wav2vec2-large-mlp", 2048, 1024, 4096), shape("llama-3-8b-gate", 512, 4096, 14_336)];

/// One row, and a few: bound by memory.
pub const ROW: Shape = shape("row", 1, 4096, 4096);
pub const FEW: Shape = shape("few-rows", 4, 4096, 4096);

/// A few columns: what chooses among 8 experts.
pub const ROUTER: Shape = shape("router-8", 2048, 4096, 8);
