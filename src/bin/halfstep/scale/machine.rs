//! Machines by name: public numbers of their parts, each with its source. Nothing here was measured by
//! this project.

use halfstep::reduce::Link;

/// What connects two ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// NVLink, or the links between AMD's GPUs, which are modelled with the same latencies.
    NvLink,
    /// PCI Express through the host's bridges.
    Pci,
    /// A network card.
    Network,
}

/// What connects nodes.
#[derive(Debug, Clone, Copy)]
pub enum Between {
    /// Bytes/s that a node sends to others, nominal, while it receives as many.
    Nominal(f64),
    /// What an exchange of a `Reducer` between all ranks of two nodes costs: `reduce::calibrate`'s.
    Measured(Link),
}

/// What multiplies f32 matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum F32Unit {
    /// A matrix unit (TF32 on NVIDIA's, f32 on AMD's).
    Matrix,
    /// The vector unit.
    Vector,
}

/// A machine. Rates are per rank (an MI250X is two ranks), bytes are 1, FLOP/s are dense.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub name: &'static str,
    pub about: &'static str,
    pub source: &'static str,
    /// Ranks of a node.
    pub per_node: usize,
    pub nodes: usize,
    /// FLOP/s of the matrix unit on bf16 and f16.
    pub peak_16: f64,
    /// FLOP/s on f32, by `f32_unit`.
    pub peak_32: f64,
    pub f32_unit: F32Unit,
    /// Bytes/s of a rank's memory.
    pub memory_rate: f64,
    /// Bytes of it.
    pub memory: f64,
    /// What connects the ranks of a node.
    pub inside: Wire,
    /// Bytes/s that a rank sends to its neighbour in a ring inside the node, while it receives as many.
    pub inside_rate: f64,
    pub between: Between,
}

const A100_16: f64 = 312e12;
const A100_TF32: f64 = 156e12;

/// All of them.
pub const MACHINES: [Machine; 6] = [
    Machine {
        name: "juwels-booster",
        about: "936 nodes of 4 A100-40 (NVLink), 4 HDR200 adapters a node",
        source: "Kesselheim et al. 2021 (arXiv 2108.11976); NVIDIA A100 data sheet; 20 GB/s of each of 12 \
                 NVLinks as NCCL counts them (src/graph/topo.h)",
        per_node: 4,
        nodes: 936,
        peak_16: A100_16,
        peak_32: A100_TF32,
        f32_unit: F32Unit::Matrix,
        memory_rate: 1555e9,
        memory: 40e9,
        inside: Wire::NvLink,
        inside_rate: 240e9,
        between: Between::Nominal(100e9),
    },
    Machine {
        name: "leonardo",
        about: "3456 nodes of 4 custom A100-64 (NVLink), 2 dual-port HDR100 adapters a node",
        source: "leonardo-supercomputer.cineca.eu/hpc-system; De Sensi et al. 2024 (arXiv 2408.14090); A100 \
                 peaks and NVLink as for juwels-booster",
        per_node: 4,
        nodes: 3456,
        peak_16: A100_16,
        peak_32: A100_TF32,
        f32_unit: F32Unit::Matrix,
        memory_rate: 1640e9,
        memory: 64e9,
        inside: Wire::NvLink,
        inside_rate: 240e9,
        between: Between::Nominal(50e9),
    },
    Machine {
        name: "meluxina",
        about: "200 nodes of 4 A100-40 (NVLink), 2 HDR200 adapters a node",
        source: "docs.lxp.lu; A100 numbers as for juwels-booster",
        per_node: 4,
        nodes: 200,
        peak_16: A100_16,
        peak_32: A100_TF32,
        f32_unit: F32Unit::Matrix,
        memory_rate: 1555e9,
        memory: 40e9,
        inside: Wire::NvLink,
        inside_rate: 240e9,
        between: Between::Nominal(50e9),
    },
    Machine {
        name: "lumi",
        about: "2978 nodes of 4 MI250X (8 ranks, xGMI), 4 Slingshot adapters of 200 Gb/s a node",
        source: "LUMI user guide (hardware/lumig, network); AMD MI250X data sheet, halved; 100 GB/s inside is \
                 assumed, two to four links of 36 GB/s as RCCL counts them (src/graph/topo.h)",
        per_node: 8,
        nodes: 2978,
        peak_16: 191.5e12,
        peak_32: 47.9e12,
        f32_unit: F32Unit::Matrix,
        memory_rate: 1638e9,
        memory: 64e9,
        inside: Wire::NvLink,
        inside_rate: 100e9,
        between: Between::Nominal(100e9),
    },
    Machine {
        name: "a4-a100-pcie",
        about: "a workstation of 4 A100-40 behind PCIe 4.0 x16, no NVLink",
        source: "NVIDIA A100 PCIe data sheet; 31.5 GB/s a direction by the standard, of which 20 GB/s through \
                 the host's bridges is assumed; one 100 Gb/s adapter",
        per_node: 4,
        nodes: 1,
        peak_16: A100_16,
        peak_32: A100_TF32,
        f32_unit: F32Unit::Matrix,
        memory_rate: 1555e9,
        memory: 40e9,
        inside: Wire::Pci,
        inside_rate: 20e9,
        between: Between::Nominal(12.5e9),
    },
    Machine {
        name: "v100-100gbe",
        about: "32 servers of 8 V100 (NVLink; of 16 bits they multiply f16), one 100 Gb/s adapter each: the cluster of the \
                DDP paper",
        source: "Li et al., VLDB 2020 (arXiv 2006.15704); NVIDIA V100 data sheet; 20 GB/s of each of 6 NVLinks",
        per_node: 8,
        nodes: 32,
        peak_16: 125e12,
        peak_32: 15.7e12,
        f32_unit: F32Unit::Vector,
        memory_rate: 900e9,
        memory: 32e9,
        inside: Wire::NvLink,
        inside_rate: 120e9,
        between: Between::Nominal(12.5e9),
    },
];

impl Machine {
    pub fn named(name: &str) -> Option<Self> {
        MACHINES.into_iter().find(|machine| machine.name == name)
    }

    /// Ranks of the whole machine.
    pub fn ranks(&self) -> usize {
        self.per_node * self.nodes
    }
}
