//! What is compared.

use crate::data;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32,
    Bf16,
    F16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// D[m,n] = gelu(A[m,k]·B[k,n] + bias[n]), by the error function.
    Forward,
    /// D[m,n] = A[m,k]·B[k,n]
    Plain,
    /// D[m,n] = A[m,k]·B[n,k]ᵀ
    DataGrad,
    /// D[m,n] = A[k,m]ᵀ·B[k,n]
    WeightGrad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Case {
    Gemm {
        product: Product,
        dtype: Dtype,
        m: usize,
        n: usize,
        k: usize,
    },
    /// AdamW on f32 parameters by bf16 gradients: unscale, finite check, norm, clip, step, bf16 copy out.
    Adamw {
        lengths: Vec<usize>,
    },
    Convert {
        from: Dtype,
        to: Dtype,
        len: usize,
    },
}

/// A case in a peer's memory.
pub trait Work {
    fn run(&mut self);
    /// The elements of the answer at [`data::places`].
    fn look(&mut self) -> Vec<f64>;
}

pub trait Peer {
    /// Takes the memory, or says why the peer has no such case.
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String>;
}

fn dtype(word: &str) -> Result<Dtype, String> {
    match word {
        "f32" => Ok(Dtype::F32),
        "bf16" => Ok(Dtype::Bf16),
        "f16" => Ok(Dtype::F16),
        _ => Err(format!("type {word}")),
    }
}

fn number(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

impl Case {
    /// `forward bf16 M N K`, `adamw flat LEN`, `adamw list LEN…`, `convert f32 bf16 LEN`.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        match words {
            [name @ ("forward" | "plain" | "dgrad" | "wgrad"), kind, m, n, k] => Ok(Self::Gemm {
                product: match *name {
                    "forward" => Product::Forward,
                    "plain" => Product::Plain,
                    "dgrad" => Product::DataGrad,
                    _ => Product::WeightGrad,
                },
                dtype: dtype(kind)?,
                m: number(m)?,
                n: number(n)?,
                k: number(k)?,
            }),
            ["adamw", lengths @ ..] => Ok(Self::Adamw {
                lengths: lengths.iter().map(|word| number(word)).collect::<Result<_, _>>()?,
            }),
            ["convert", from, to, len] => {
                Ok(Self::Convert { from: dtype(from)?, to: dtype(to)?, len: number(len)? })
            }
            _ => Err(format!("case {words:?}")),
        }
    }
}

/// Elements of D at the places, as f64.
pub fn look<T: Copy>(values: &[T], widen: impl Fn(T) -> f64) -> Vec<f64> {
    data::places(values.len()).map(|place| widen(values[place])).to_vec()
}
