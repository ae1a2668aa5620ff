//! The crate `matrixmultiply`: f32. (Its threads are as many as `MATMUL_NUM_THREADS` says.)

use crate::case::{Case, Dtype, Peer, Product, Work, look};
use crate::data;

pub struct MatrixMultiply;

impl Peer for MatrixMultiply {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        match *case {
            Case::Gemm { product, dtype: Dtype::F32, m, n, k } if product != Product::Forward => {
                Ok(Box::new(Multiply {
                    sizes: (product, m, n, k),
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
    a: Vec<f32>,
    b: Vec<f32>,
    d: Vec<f32>,
}

impl Work for Multiply {
    fn run(&mut self) {
        let (product, m, n, k) = self.sizes;
        let (row_a, column_a) = if product == Product::WeightGrad { (1, m) } else { (k, 1) };
        let (row_b, column_b) = if product == Product::DataGrad { (1, k) } else { (n, 1) };
        // SAFETY: the strides are those of dense matrices of these sizes.
        unsafe {
            matrixmultiply::sgemm(
                m,
                k,
                n,
                1.0,
                self.a.as_ptr(),
                row_a as isize,
                column_a as isize,
                self.b.as_ptr(),
                row_b as isize,
                column_b as isize,
                0.0,
                self.d.as_mut_ptr(),
                n as isize,
                1,
            );
        }
    }

    fn look(&mut self) -> Vec<f64> {
        look(&self.d, f64::from)
    }
}
