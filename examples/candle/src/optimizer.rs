//! An optimizer whose parameters are candle's variables.

use std::collections::HashMap;

use candle_core::backprop::GradStore;
use candle_core::{Error, Result, Var};
use halfstep::optim::{Config, Group, Report, Rule, Tensor};
use halfstep::{Device, Read, Stream, Write};

use crate::Element;
use crate::lend::{Locked, expect_shape, with_all};

const OP: &str = "halfstep-optimizer";

/// Steps of variables of `T` by a rule of halfstep, from gradients as [`candle_core::Tensor::backward`] gives them.
///
/// What values are kept in between steps, [`Config::master`] says: f32, unless set. One who has changed a variable by hand
/// calls [`load`](Self::load).
pub struct Optimizer<T: Element> {
    names: Vec<String>,
    vars: Vec<Var>,
    /// Whose memory is whose: a name by where it is.
    owners: HashMap<usize, String>,
    stream: Stream,
    inner: halfstep::optim::Optimizer<T, T>,
}

impl<T: Element> Optimizer<T> {
    /// An optimizer of `vars`, each with its name in errors and files.
    pub fn new(
        device: &Device,
        vars: &[(&str, &Var)],
        rule: impl Into<Rule>,
        config: Config,
    ) -> Result<Self> {
        let (mut group, mut owners) = (Group::new(rule), HashMap::new());
        for (name, var) in vars {
            group = group.tensor(Tensor::new(*name, var.elem_count()));
            if let Some(owner) = owners.insert(Locked::new(var).storage(), name.to_string()) {
                return Err(shared(name, &owner));
            }
        }
        let mut optimizer = Self {
            names: vars.iter().map(|(name, _)| name.to_string()).collect(),
            vars: vars.iter().map(|(_, var)| (*var).clone()).collect(),
            owners,
            stream: device.stream().map_err(Error::wrap)?,
            inner: halfstep::optim::Optimizer::new(device, &[group], config)
                .map_err(Error::wrap)?,
        };
        optimizer.load()?;
        Ok(optimizer)
    }

    /// Takes the variables' values for those that steps add to.
    pub fn load(&mut self) -> Result<()> {
        let locked: Vec<_> = self.vars.iter().map(|var| Locked::new(var)).collect();
        let elements = self.names.iter().zip(&locked).map(|(name, var)| var.elements(OP, name));
        let elements: Vec<&[T]> = elements.collect::<Result<_>>()?;
        let values: Vec<_> = elements.iter().map(|of| of as &dyn Read<T>).collect();
        self.inner.load_params(&self.stream, &values).map_err(Error::wrap)
    }

    /// One step of every variable that has a gradient, or of none where a gradient is not finite.
    pub fn step(&mut self, grads: &GradStore) -> Result<()> {
        let locked: Vec<_> = self.vars.iter().map(|var| grads.get(var).map(Locked::new)).collect();
        let mut elements: Vec<Option<&[T]>> = Vec::with_capacity(locked.len());
        for ((name, var), grad) in self.names.iter().zip(&self.vars).zip(&locked) {
            let Some(grad) = grad else {
                elements.push(None);
                continue;
            };
            let arg = format!("gradient of {name}");
            if let Some(owner) = self.owners.get(&grad.storage()) {
                return Err(shared(&arg, owner));
            }
            expect_shape(&arg, var.shape(), grad.shape())?;
            elements.push(Some(grad.elements(OP, &arg)?));
        }
        let grads: Vec<_> =
            elements.iter().map(|of| of.as_ref().map(|of| of as &dyn Read<T>)).collect();
        let (inner, stream) = (&mut self.inner, &self.stream);
        with_all(OP, &self.vars, Vec::new(), &mut |mut lent: Vec<&mut [T]>| {
            let mut params: Vec<_> = lent.iter_mut().map(|of| of as &mut dyn Write<T>).collect();
            inner.run(stream, &mut params, &grads).map_err(Error::wrap)
        })
    }

    /// What the next loss is to be multiplied by: 1, unless [`Config::scaler`] says otherwise.
    pub fn scale(&self) -> Result<f32> {
        self.inner.scale(&self.stream).map_err(Error::wrap)
    }

    /// What the last step decided: whether it was skipped, and the gradients' norm.
    pub fn report(&self) -> Result<Report> {
        self.inner.report(&self.stream).map_err(Error::wrap)
    }

    /// Sets the learning rate, from the next step on.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        self.inner.set_lr(0, lr).map_err(Error::wrap)
    }
}

/// Who would wait for a lock that this call holds.
fn shared(arg: &str, owner: &str) -> Error {
    Error::Msg(format!("{OP}: {arg}: expected memory of its own, found that of {owner}")).bt()
}
