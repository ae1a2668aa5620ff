//! The crate `half`: conversions of slices, each thread a part.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::case::{Case, Dtype, Peer, Work, look};
use crate::data;

pub struct Half {
    pub threads: usize,
}

impl Peer for Half {
    fn make(&self, case: &Case) -> Result<Box<dyn Work>, String> {
        let threads = self.threads;
        let &Case::Convert { from, to, len } = case else { return Err("conversions only".into()) };
        let wide: Vec<f32> = data::values(len, data::A, 1.0);
        let bf16s: Vec<bf16> = data::values(len, data::A, 1.0);
        let f16s: Vec<f16> = data::values(len, data::A, 1.0);
        fn narrow<H: Send>(
            wide: Vec<f32>,
            to: Vec<H>,
            threads: usize,
            convert: fn(&mut [H], &[f32]),
            f64: fn(H) -> f64,
        ) -> Box<dyn Work>
        where
            H: Copy + Sync + 'static,
        {
            Box::new(Convert { from: wide, to, threads, convert, widen: f64 })
        }
        Ok(match (from, to) {
            (Dtype::F32, Dtype::Bf16) => {
                narrow(wide, bf16s, threads, |to, from| to.convert_from_f32_slice(from), f64::from)
            }
            (Dtype::F32, Dtype::F16) => {
                narrow(wide, f16s, threads, |to, from| to.convert_from_f32_slice(from), f64::from)
            }
            (Dtype::Bf16, Dtype::F32) => Box::new(Convert {
                from: bf16s,
                to: wide,
                threads,
                convert: |to: &mut [f32], from: &[bf16]| from.convert_to_f32_slice(to),
                widen: f64::from,
            }),
            (Dtype::F16, Dtype::F32) => Box::new(Convert {
                from: f16s,
                to: wide,
                threads,
                convert: |to: &mut [f32], from: &[f16]| from.convert_to_f32_slice(to),
                widen: f64::from,
            }),
            _ => return Err("no such conversion".into()),
        })
    }
}

struct Convert<A, B> {
    from: Vec<A>,
    to: Vec<B>,
    threads: usize,
    convert: fn(&mut [B], &[A]),
    widen: fn(B) -> f64,
}

impl<A: Sync, B: Send + Copy> Work for Convert<A, B> {
    fn run(&mut self) {
        let part = self.from.len().div_ceil(self.threads);
        if self.threads == 1 {
            return (self.convert)(&mut self.to, &self.from);
        }
        let convert = self.convert;
        rayon::scope(|scope| {
            for (to, from) in self.to.chunks_mut(part).zip(self.from.chunks(part)) {
                scope.spawn(move |_| convert(to, from));
            }
        });
    }

    fn look(&mut self) -> Vec<f64> {
        look(&self.to, self.widen)
    }
}
