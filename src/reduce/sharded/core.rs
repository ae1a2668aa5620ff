//! What a sharded step is of, whatever the types of parameters and gradients.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::super::comm::Communicator;
use super::super::config::{Config, Sum};
use super::super::core as reducer;
use super::super::plan::{BucketPlan, Fnv};
use super::cut::Cut;
use super::params::Bringing;
use super::rows::Rows;
use crate::kernel::params::Partial;
use crate::optim::{self, Group, Rule};
use crate::{Buffer, Device, Dtype, Error, Result};

const NEW: &str = "Sharded::new";

/// A [`Sharded`](super::Sharded) whose types are values: all that it does is compiled once, and not for each pair.
pub(super) struct Core {
    /// What parameters are stored as.
    pub(super) param: Dtype,
    /// And gradients.
    pub(super) grad: Dtype,
    pub(super) reducer: reducer::Core,
    pub(super) optimizer: optim::core::Core,
    pub(super) cut: Arc<Cut>,
    pub(super) rank: usize,
    /// Of each tensor of the optimizer's list, its place in the declared one.
    pub(super) order: Vec<usize>,
    /// Of each declared parameter, its place in the optimizer's list.
    pub(super) place: Vec<usize>,
    /// This rank's part of each declared parameter's averaged gradient.
    pub(super) gradients: Vec<Buffer<u8>>,
    /// The reducer's partials, in the declared order, and behind them what each rank says of its step.
    pub(super) partials: Rows,
    /// LAMB's norms, in the optimizer's order.
    pub(super) norms: Rows,
    /// Of each bucket, the parameters that come.
    pub(super) bringing: Vec<Bringing>,
    /// Of each declared parameter, whether other ranks' parts have been fetched.
    pub(super) whole: Vec<bool>,
}

impl Core {
    pub(super) fn new(
        (param, grad): (Dtype, Dtype),
        device: &Device,
        plan: BucketPlan,
        comm: Box<dyn Communicator>,
        config: Config,
        groups: &[Group],
        optimizer: optim::Config,
    ) -> Result<Self> {
        if config.views {
            return Err(Error::unsupported(NEW, "config.views: parts of gradients lie apart"));
        }
        if config.sum != Sum::RankOrder {
            return Err(Error::unsupported(NEW, "config.sum: parts are added up in rank order"));
        }
        let plan = Arc::new(plan);
        let (rank, ranks) = (comm.rank(), comm.size());
        let order = order(&plan, groups)?;
        let cut = Arc::new(Cut::new(plan.clone(), ranks));
        let mut hash = Fnv::new();
        hash.write(format!("{groups:?} {optimizer:?} {}", param).as_bytes());
        let own = Some((cut.clone(), hash.0));
        let parts: Vec<_> = order.iter().map(|&param| cut.part(param, rank)).collect();
        let optimizer =
            optim::core::Core::new((param, grad), device, groups, optimizer, Some(&parts))?;
        let reducer = reducer::Core::new(
            grad,
            device,
            plan.clone(),
            comm,
            Config { stats: true, ..config },
            own,
        )?;

        let params = plan.params().len();
        let declared: Vec<usize> = (0..params).collect();
        let chunks = |order| (0..ranks).map(|rank| cut.chunks(order, rank)).collect::<Vec<_>>();
        let lamb = groups.iter().any(|group| matches!(group.rule, Rule::Lamb(_)));
        let norms = if lamb { chunks(&order) } else { vec![Vec::new(); ranks] };
        let part = |param: usize| device.zeros(cut.part(param, rank).len() * grad.bytes());
        let bucket = |bucket: usize| {
            let bytes = cut.largest(bucket) * param.bytes();
            let bytes = if ranks == 1 { 0 } else { bytes.max(1).next_multiple_of(256) };
            Ok(Bringing::new(device.zeros(bytes)?))
        };
        let mut partials = chunks(&declared);
        let (all, said) = (reducer.stats.partials.len(), 1 + groups.len());
        for (rank, rows) in partials.iter_mut().enumerate() {
            rows.push(all + rank * said..all + (rank + 1) * said);
        }
        let mut place = vec![0; params];
        order.iter().enumerate().for_each(|(tensor, &param)| place[param] = tensor);
        Ok(Self {
            param,
            grad,
            gradients: declared.iter().map(|&param| part(param)).collect::<Result<_>>()?,
            partials: Rows::new(device, size_of::<Partial>(), partials)?,
            norms: Rows::new(device, 2 * size_of::<f64>(), norms)?,
            bringing: (0..plan.buckets().len()).map(bucket).collect::<Result<_>>()?,
            whole: vec![true; params],
            reducer,
            optimizer,
            cut,
            rank,
            order,
            place,
        })
    }

    pub(super) fn check_count(&self, op: &'static str, found: usize) -> Result<()> {
        let expected = self.whole.len();
        if found == expected {
            return Ok(());
        }
        Err(Error::shape(op, "params", format!("{expected} tensors"), found))
    }
}

/// Of each tensor of all groups, its place in the plan.
fn order(plan: &BucketPlan, groups: &[Group]) -> Result<Vec<usize>> {
    let mut places: Vec<usize> = (0..plan.params().len()).collect();
    let name = |&param: &usize| plan.params()[param].name.as_str();
    places.sort_by(|a, b| name(a).cmp(name(b)));
    if let Some(pair) = places.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
        return Err(Error::range(NEW, "plan", "every parameter's name once", name(&pair[0])));
    }
    let mut left = vec![true; places.len()];
    let mut order = Vec::with_capacity(places.len());
    for (group, of) in groups.iter().enumerate() {
        for (at, tensor) in of.tensors.iter().enumerate() {
            let arg = format!("groups[{group}].tensors[{at}]");
            let found = places.binary_search_by(|param| name(param).cmp(&tensor.name));
            let Ok(found) = found else {
                return Err(Error::range(NEW, arg, "a parameter of the plan", &tensor.name));
            };
            let param = places[found];
            let len = plan.params()[param].len;
            if tensor.len != len {
                let expected = format!("{len} elements ({})", tensor.name);
                return Err(Error::shape(NEW, arg, expected, tensor.len));
            }
            left[param] = false;
            order.push(param);
        }
    }
    match left.iter().position(|&left| left) {
        Some(param) => Err(Error::range(
            NEW,
            "groups",
            "every parameter of the plan",
            format!("none with {}", name(&param)),
        )),
        None if order.len() > left.len() => {
            Err(Error::range(NEW, "groups", "every parameter once", order.len()))
        }
        None => Ok(order),
    }
}
