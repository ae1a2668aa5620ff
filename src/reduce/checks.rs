//! What is checked before a call of the reducer changes anything.

#![forbid(unsafe_code)]

use super::config::Unscale;
use super::core::Core;
use super::launch::Span;
use super::plan::Param;
use super::reducer::FINISH;
use crate::lend::List;
use crate::{Error, Result, Stream};

impl Core {
    pub(super) fn check_fault(&self) -> Result<()> {
        // A fork has no thread that exchanges anything: it would wait for ever.
        let process = std::process::id();
        if process != self.process {
            let expected = format!("a call of process {}, which made it", self.process);
            return Err(Error::state("Reducer", expected, format!("one of its fork {process}")));
        }
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Whether work on the stream reaches the reducer's memory: lent gradients say only that it reaches theirs.
    pub(super) fn check_stream(&self, op: &'static str, stream: &Stream) -> Result<()> {
        let own = self.shard_table.device();
        if stream.device().reaches(own) {
            return Ok(());
        }
        let (expected, found) = (own.info().to_string(), stream.device().info().to_string());
        Err(Error::Device { op, arg: "stream".into(), expected, found })
    }

    /// A gradient of the caller's, which is lent once it may be marked, or added.
    pub(super) fn check_gradient(
        &self,
        op: &'static str,
        stream: &Stream,
        param: usize,
        gradient: &mut dyn List,
    ) -> Result<Span> {
        self.check_gradients_lie(op, false)?;
        self.check_fault()?;
        self.check_stream(op, stream)?;
        let declared = self.check_param(op, param)?;
        self.check_unmarked(op, param)?;
        let lent = gradient.lend(0, stream)?;
        let arg = || format!("gradient of {}", declared.name).into();
        if lent.len() != declared.len {
            let expected = format!("{} elements", declared.len);
            return Err(Error::shape(op, arg(), expected, lent.len()));
        }
        Ok(Span { address: lent.address(op, &arg, stream)?, len: lent.len() })
    }

    pub(super) fn check_param(&self, op: &'static str, param: usize) -> Result<&Param> {
        self.plan.params().get(param).ok_or_else(|| {
            let expected = format!("an index below {}", self.plan.params().len());
            Error::range(op, "param", expected, param)
        })
    }

    pub(super) fn check_unmarked(&self, op: &'static str, param: usize) -> Result<()> {
        if !self.marked[param] {
            return Ok(());
        }
        let (bucket, _) = self.plan.place(param);
        let found = format!("{} (bucket {bucket}) marked twice", self.plan.params()[param].name);
        Err(Error::state(op, "each parameter marked ready once a step", found))
    }

    /// Whether gradients are views, as the call needs.
    pub(super) fn check_gradients_lie(&self, op: &'static str, views: bool) -> Result<()> {
        let name = |views| if views { "Config::views" } else { "gradients of the caller's" };
        match views == self.config.views {
            true => Ok(()),
            false => Err(Error::state(op, name(views), name(!views))),
        }
    }

    pub(super) fn check_unscale(&self, op: &'static str, unscale: Unscale) -> Result<()> {
        match unscale {
            Unscale::Factor(factor) if !(factor.is_finite() && factor > 0.0) => {
                Err(Error::range(op, "unscale", "a finite factor above 0", factor))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_outputs(
        &self,
        stream: &Stream,
        gradients: &mut dyn List,
        unscale: Unscale,
    ) -> Result<Vec<Span>> {
        self.check_fault()?;
        self.check_stream(FINISH, stream)?;
        self.check_unscale(FINISH, unscale)?;
        let params = self.plan.params();
        if gradients.len() != params.len() {
            let expected = format!("{} tensors", params.len());
            return Err(Error::shape(FINISH, "gradients", expected, gradients.len()));
        }
        let mut spans = Vec::with_capacity(params.len());
        for (index, param) in params.iter().enumerate() {
            let arg = || format!("gradients[{index}] ({})", param.name).into();
            let lent = gradients.lend(index, stream)?;
            if lent.len() != param.len {
                let expected = format!("{} elements", param.len);
                return Err(Error::shape(FINISH, arg(), expected, lent.len()));
            }
            spans.push(Span { address: lent.address(FINISH, &arg, stream)?, len: lent.len() });
        }
        check_overlap(&spans, self.dtype.bytes())?;
        Ok(spans)
    }
}

/// No two outputs share memory.
fn check_overlap(spans: &[Span], bytes: usize) -> Result<()> {
    let mut order: Vec<usize> = (0..spans.len()).filter(|&i| spans[i].len > 0).collect();
    order.sort_by_key(|&i| spans[i].address);
    for pair in order.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if spans[a].address.offset(spans[a].len * bytes) > spans[b].address {
            let name = |i: usize| format!("gradients[{i}]").into();
            let (first, second) = (name(a.min(b)), name(a.max(b)));
            return Err(Error::Overlap { op: FINISH, first, second });
        }
    }
    Ok(())
}
