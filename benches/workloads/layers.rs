//! Sizes that are measured: rows (tokens) × input features × output features of a linear layer.

/// M×K×N.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub input: usize,
    pub output: usize,
}

const fn shape(rows: usize, input: usize, output: usize) -> Shape {
    Shape { rows, input, output }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}×{}", self.rows, self.input, self.output)
    }
}

/// The two with a mark to reach.
pub const MARKED: [Shape; 2] = [shape(1024, 1024, 1024), shape(2048, 768, 3072)];

/// Square, a short batch through a transformer's first MLP layer, and odd in every dimension.
pub const OTHERS: [Shape; 3] = [shape(512, 512, 512), shape(128, 768, 3072), shape(1000, 777, 333)];

/// One row: bound by memory.
pub const ROW: Shape = shape(1, 4096, 4096);
