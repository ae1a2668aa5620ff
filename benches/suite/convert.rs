//! Conversions of large arrays between f32 and 16 bits: loading an optimizer's masters from parameters,
//! and writing parameters from masters.

use std::rc::Rc;

use halfstep::optim::{AdamW, Config, Group, Optimizer, Tensor};
use halfstep::{Buffer, Device, Storage, Stream, bf16, f16};

use super::{Arithmetic, Case, Entry, Failure, On, Traffic, signals, text};

pub fn entries(all: &mut Vec<Entry>, len: usize) {
    for narrow in [false, true] {
        add::<bf16>(all, len, narrow);
        add::<f16>(all, len, narrow);
    }
}

fn add<T: Storage>(all: &mut Vec<Entry>, len: usize, narrow: bool) {
    let wide = T::DTYPE.name();
    let name =
        if narrow { format!("f32 to {wide}, masters") } else { format!("{wide} to f32, masters") };
    all.push(Entry {
        op: "convert",
        name,
        size: len.to_string(),
        workload: "",
        flops: len as f64, // each counts as one
        bytes: 6.0 * len as f64,
        arithmetic: Arithmetic::F32,
        traffic: Traffic::Update, // the machine's best, with which no stores are read first
        on: On::One,
        make: Box::new(move |device| Ok(Box::new(Convert::<T>::new(device, len, narrow)?))),
    });
}

struct Convert<T: Storage> {
    narrow: bool,
    stream: Rc<Stream>,
    optimizer: Optimizer<T, T>,
    params: Buffer<T>,
    values: Vec<f32>,
}

impl<T: Storage> Convert<T> {
    fn new(device: &Device, len: usize, narrow: bool) -> Result<Self, Failure> {
        let stream = Rc::new(device.stream().map_err(text)?);
        let group = Group::new(AdamW::default()).tensor(Tensor::new("t", len));
        let mut optimizer = Optimizer::new(device, &[group], Config::default()).map_err(text)?;
        let values = signals::<f32>(len, 1);
        let narrowed: Vec<T> = values.iter().map(|&value| T::narrow(value)).collect();
        let mut params = device.upload(&narrowed).map_err(text)?;
        if narrow {
            // Masters finer than parameters, and parameters that are wrong until they are written.
            let fine = device.upload(&values).map_err(text)?;
            optimizer.init_from_f32(&stream, &[&fine], &mut [&mut params]).map_err(text)?;
            params.clear(&stream).map_err(text)?;
        }
        Ok(Self { narrow, stream, optimizer, params, values })
    }
}

impl<T: Storage> Case for Convert<T> {
    fn run(&mut self) -> Result<(), Failure> {
        let Self { narrow, stream, optimizer, params, .. } = self;
        if *narrow {
            optimizer.write_params(stream, &mut [params]).map_err(text)
        } else {
            optimizer.load_params(stream, &[&*params]).map_err(text)
        }
    }

    fn wait(&self) -> Result<(), Failure> {
        self.stream.sync().map_err(text)
    }

    fn stream(&self) -> Option<Rc<Stream>> {
        Some(self.stream.clone())
    }

    /// Every element.
    fn check(&mut self) -> Result<(), Failure> {
        let exact = |index: usize| T::narrow(self.values[index]);
        if self.narrow {
            let found = self.params.to_vec(&self.stream).map_err(text)?;
            let wrong = found.iter().enumerate().position(|(i, found)| *found != exact(i));
            return wrong.map_or(Ok(()), |at| Err(format!("element {at} is {:?}", found[at])));
        }
        let found = self.optimizer.master(&self.stream, 0, &self.params).map_err(text)?;
        let wrong = found.iter().enumerate().position(|(i, found)| *found != exact(i).widen());
        wrong.map_or(Ok(()), |at| Err(format!("element {at} is {}", found[at])))
    }
}
