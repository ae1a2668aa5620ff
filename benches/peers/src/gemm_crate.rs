//! The crate `gemm`: f32 and f16 as they are; bf16 by widening both operands into memory taken beforehand.
//! Bias and activation are a loop of their own, as its users write it.

use gemm::Parallelism;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use halfstep::Storage;

use crate::case::{Case, Dtype, Peer, Product, Work, look};
use crate::data;

pub struct GemmCrate {
    pub threads: usize,
}

impl Peer for GemmCrate {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        let &Case::Gemm { product, dtype, m, n, k } = case else {
            return Err("products only".into());
        };
        if product == Product::Forward {
            return Err("no epilogue".into());
        }
        let parallelism =
            if self.threads == 1 { Parallelism::None } else { Parallelism::Rayon(self.threads) };
        let sizes = (product, m, n, k, parallelism);
        Ok(match dtype {
            Dtype::F32 => Box::new(Native::<f32>::new(sizes)),
            Dtype::F16 => Box::new(Native::<f16>::new(sizes)),
            Dtype::Bf16 => {
                let (a, b) =
                    (data::values(m * k, data::A, 1.0), data::values(k * n, data::B, data::WEIGHT));
                let (mut wide, d) = (Native::<f32>::new(sizes), vec![bf16::ZERO; m * n]);
                wide.d.fill(0.0);
                Box::new(Widened { a, b, d, wide })
            }
        })
    }
}

struct Native<T> {
    sizes: (Product, usize, usize, usize, Parallelism),
    a: Vec<T>,
    b: Vec<T>,
    d: Vec<T>,
}

impl<T: Storage> Native<T> {
    fn new(sizes: (Product, usize, usize, usize, Parallelism)) -> Self {
        let (_, m, n, k, _) = sizes;
        Self {
            sizes,
            a: data::values(m * k, data::A, 1.0),
            b: data::values(k * n, data::B, data::WEIGHT),
            d: vec![T::narrow(0.0); m * n],
        }
    }

    fn multiply(&mut self) {
        let (product, m, n, k, parallelism) = self.sizes;
        let a_strides = if product == Product::WeightGrad { (m, 1) } else { (1, k) };
        let b_strides = if product == Product::DataGrad { (k, 1) } else { (1, n) };
        // SAFETY: the strides, of columns and rows, are those of dense matrices of these sizes.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.d.as_mut_ptr(),
                1,
                n as isize,
                false,
                self.a.as_ptr(),
                a_strides.0 as isize,
                a_strides.1 as isize,
                self.b.as_ptr(),
                b_strides.0 as isize,
                b_strides.1 as isize,
                T::narrow(0.0),
                T::narrow(1.0),
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

impl<T: Storage> Work for Native<T> {
    fn run(&mut self) {
        self.multiply();
    }

    fn look(&mut self) -> Vec<f64> {
        look(&self.d, |value| value.widen().into())
    }
}

struct Widened {
    a: Vec<bf16>,
    b: Vec<bf16>,
    d: Vec<bf16>,
    wide: Native<f32>,
}

impl Work for Widened {
    fn run(&mut self) {
        self.a.convert_to_f32_slice(&mut self.wide.a);
        self.b.convert_to_f32_slice(&mut self.wide.b);
        self.wide.multiply();
        self.d.convert_from_f32_slice(&self.wide.d);
    }

    fn look(&mut self) -> Vec<f64> {
        look(&self.d, f64::from)
    }
}
