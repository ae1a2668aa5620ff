//! The crate `faer`: f32.

use std::num::NonZeroUsize;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::case::{Case, Dtype, Peer, Product, Work, look};
use crate::data;

pub struct Faer {
    pub threads: usize,
}

impl Peer for Faer {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        match *case {
            Case::Gemm { product, dtype: Dtype::F32, m, n, k } if product != Product::Forward => {
                Ok(Box::new(Multiply {
                    sizes: (product, m, n, k),
                    par: NonZeroUsize::new(self.threads)
                        .filter(|n| n.get() > 1)
                        .map_or(Par::Seq, Par::Rayon),
                    a: data::values(m * k, data::A, 1.0),
                    b: data::values(k * n, data::B, data::WEIGHT),
                    d: vec![0.0; m * n],
                }))
            }
            _ => Err("plain f32 products only".into()),
        }
    }
}

struct Multiply {
    sizes: (Product, usize, usize, usize),
    par: Par,
    a: Vec<f32>,
    b: Vec<f32>,
    d: Vec<f32>,
}

impl Work for Multiply {
    fn run(&mut self) {
        let (product, m, n, k) = self.sizes;
        let a = match product {
            Product::WeightGrad => MatRef::from_row_major_slice(&self.a, k, m).transpose(),
            _ => MatRef::from_row_major_slice(&self.a, m, k),
        };
        let b = match product {
            Product::DataGrad => MatRef::from_row_major_slice(&self.b, n, k).transpose(),
            _ => MatRef::from_row_major_slice(&self.b, k, n),
        };
        let d = MatMut::from_row_major_slice_mut(&mut self.d, m, n);
        matmul(d, Accum::Replace, a, b, 1.0f32, self.par);
    }

    fn look(&mut self) -> Vec<f64> {
        look(&self.d, f64::from)
    }
}
