//! Seconds that one all-reduce takes, by the standard formulas of its algorithms.
//!
//! With `S` bytes a rank, `N` ranks on `n` nodes of `g`, `h` the seconds of a hop, `B` bytes/s:
//!
//! | algorithm | latency | bytes |
//! |---|---|---|
//! | ring | (2(N−1) − 2(n−1))·h_in + 2(n−1)·h_net | 2(N−1)/N · S/min(B_in, B_net) |
//! | tree | 2(g−1)·h_in + 2·log₂n·h_net | 2S/(0.92·min(B_in, B_net)) |
//! | hierarchical | 2(g−1)·h_in + 2·log₂n·h_net | 2(g−1)/g·S/B_in + 2(n−1)/n·S/B_net |
//! | direct | 2·(h + (N−1)·o) | 2·max((g−1)/N·S/B_in, g·(N−g)/N·S/B_net) + sum |
//! | two-level | 2·(h_in + (g−1)·o) + 3·(h_net + (n−1)·o) | 2(g−1)/g·S/B_in + (1+w)·(n−1)/n·S/B_net + sums |
//!
//! Sources: ring and hierarchical, Patarasuk and Yuan 2009, Thakur et al. 2005; recursive halving and
//! doubling between nodes (the 2·log₂n of *hierarchical*), Rabenseifner 2004; tree (double binary),
//! Sanders et al. 2009, and its factor 0.92 NCCL's. Direct is an all-to-all of shards, their sum in f32,
//! and an all-gather: what this crate's reducer does. Two-level is what it does over `reduce::Hierarchical`:
//! all-to-all inside nodes, what ranks say of their buckets across (a message, hardly a byte), all-to-all of
//! sums across, in f32, which is `w` times as wide as the wire, all-gather of results across, and inside; on
//! one node it is direct. Hops, what each call costs before its first, and
//! protocols (small messages trade bandwidth for latency) are those of NCCL's own model,
//! `src/graph/tuning.cc`; `o`, what a message costs the sender, is its `netOverhead`.

use halfstep::Dtype;

use super::machine::{Between, Machine, Wire};

/// How ranks exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Algorithm {
    Ring,
    Tree,
    Hierarchical,
    Direct,
    TwoLevel,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Tree => "tree",
            Self::Hierarchical => "hierarchical",
            Self::Direct => "direct",
            Self::TwoLevel => "two-level",
        }
    }

    /// The one, as a list to choose from.
    pub fn alone(self) -> &'static [Self] {
        match self {
            Self::Ring => &[Self::Ring],
            Self::Tree => &[Self::Tree],
            Self::Hierarchical => &[Self::Hierarchical],
            Self::Direct => &[Self::Direct],
            Self::TwoLevel => &[Self::TwoLevel],
        }
    }

    /// What libraries choose from, adding in the type of the wire.
    pub const LIBRARY: &[Self] = &[Self::Ring, Self::Tree];
}

/// One protocol: seconds before the first hop and of each, as (ring, tree), and its share of bandwidth.
struct Protocol {
    base: (f64, f64),
    nvlink: (f64, f64),
    pci: (f64, f64),
    network: (f64, f64),
    share: f64,
}

/// NCCL's LL, LL128 and Simple, in seconds.
const PROTOCOLS: [Protocol; 3] = [
    Protocol {
        base: (6.6e-6, 6.8e-6),
        nvlink: (0.6e-6, 0.6e-6),
        pci: (1.0e-6, 1.0e-6),
        network: (2.7e-6, 5.0e-6),
        share: 0.5,
    },
    Protocol {
        base: (14.0e-6, 14.0e-6),
        nvlink: (1.9e-6, 1.25e-6),
        pci: (2.5e-6, 1.9e-6),
        network: (4.0e-6, 8.5e-6),
        share: 0.92,
    },
    Protocol {
        base: (8.4e-6, 8.4e-6),
        nvlink: (3.4e-6, 4.0e-6),
        pci: (5.7e-6, 4.0e-6),
        network: (14.0e-6, 14.0e-6),
        share: 1.0,
    },
];

/// Seconds that a message costs its sender (`netOverhead` on hosts by AMD and Intel: 2 and 1 µs).
const MESSAGE: f64 = 1e-6;
/// Bytes/s that a network reaches of what is nominal: packet headers and the like.
pub const NETWORK_SHARE: f64 = 0.9;

/// The part of a machine that so many ranks use.
#[derive(Debug, Clone, Copy)]
pub struct Fabric {
    ranks: f64,
    nodes: f64,
    /// Ranks of each node.
    per_node: f64,
    inside: Wire,
    inside_rate: f64,
    between_rate: f64,
    /// Seconds that a measured call takes before its first byte is in another node, messages apart.
    start: Option<f64>,
    /// Seconds of a message.
    message: f64,
    memory_rate: f64,
}

impl Fabric {
    /// `ranks` of the machine, on as few nodes as hold them.
    pub fn new(machine: &Machine, ranks: usize) -> Self {
        let nodes = ranks.div_ceil(machine.per_node);
        let (between_rate, start, message) = match machine.between {
            Between::Nominal(rate) => (NETWORK_SHARE * rate, None, MESSAGE),
            // A direct exchange between 2g ranks is 2·(start + (2g−1)·o) + g·S/B. Messages take no more than all.
            Between::Measured(link) => {
                let (g, phase) = (machine.per_node as f64, link.alpha / 2.0);
                let others = 2.0 * g - 1.0;
                let message = MESSAGE.min(phase / others);
                (g / link.beta, Some(phase - others * message), message)
            }
        };
        Self {
            ranks: ranks as f64,
            nodes: nodes as f64,
            per_node: ranks.min(machine.per_node) as f64,
            inside: machine.inside,
            inside_rate: machine.inside_rate,
            between_rate,
            start,
            message,
            memory_rate: machine.memory_rate,
        }
    }

    /// Seconds in which all ranks have the sum of their `bytes` bytes of a type, by the fastest protocol.
    pub fn seconds(&self, algorithm: Algorithm, wire: Dtype, bytes: usize) -> f64 {
        if self.ranks <= 1.0 || bytes == 0 {
            return 0.0;
        }
        let by = |protocol: &Protocol| self.by_protocol(algorithm, protocol, wire, bytes as f64);
        PROTOCOLS.iter().map(by).fold(f64::INFINITY, f64::min)
    }

    /// The fastest of several algorithms.
    pub fn fastest(
        &self,
        among: &[Algorithm],
        wire: Dtype,
        bytes: usize,
    ) -> (f64, Option<Algorithm>) {
        let candidates = among.iter().map(|&a| (self.seconds(a, wire, bytes), Some(a)));
        candidates.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((0.0, None))
    }

    fn by_protocol(
        &self,
        algorithm: Algorithm,
        protocol: &Protocol,
        wire: Dtype,
        bytes: f64,
    ) -> f64 {
        let Self { ranks: n, nodes, per_node: g, .. } = *self;
        let hops = |wire: Wire| match wire {
            Wire::NvLink => protocol.nvlink,
            Wire::Pci => protocol.pci,
            Wire::Network => protocol.network,
        };
        let inside = hops(self.inside);
        // What was measured has a call's base in it.
        let (base, network) = match self.start.filter(|_| nodes > 1.0) {
            Some(start) => {
                let base = (protocol.base.0.min(start), protocol.base.1.min(start));
                (base, (start - base.0, start - base.1))
            }
            None => (protocol.base, hops(Wire::Network)),
        };
        let inside_rate = self.inside_rate * protocol.share;
        let between_rate = self.between_rate * protocol.share;
        let slowest = if nodes > 1.0 { inside_rate.min(between_rate) } else { inside_rate };
        let log = nodes.log2().ceil();
        // A rank's share of the traffic that leaves the node, and none where there is one node.
        let out = (n - g) / n;
        let phase = |hop: f64, messages: f64| hop + messages * self.message;
        match algorithm {
            Algorithm::Ring => {
                let steps = 2.0 * (n - 1.0);
                let between = 2.0 * (nodes - 1.0);
                let latency = (steps - between) * inside.0 + between * network.0;
                base.0 + latency + steps / n * bytes / slowest
            }
            Algorithm::Tree => {
                let latency = 2.0 * (g - 1.0) * inside.1 + 2.0 * log * network.1;
                base.1 + latency + 2.0 * bytes / (0.92 * slowest)
            }
            Algorithm::Hierarchical => {
                // Three calls: reduce-scatter, all-reduce between nodes, all-gather.
                let latency = 2.0 * (g - 1.0) * inside.0 + 2.0 * log * network.0;
                let within = 2.0 * (g - 1.0) / g * bytes / inside_rate;
                let between = 2.0 * (nodes - 1.0) / nodes * bytes / between_rate;
                3.0 * base.0 + latency + within + between
            }
            Algorithm::TwoLevel if nodes > 1.0 => {
                let width = Dtype::F32.bytes() as f64 / wire.bytes() as f64;
                let latency = 2.0 * phase(inside.0, g - 1.0) + 3.0 * phase(network.0, nodes - 1.0);
                let within = 2.0 * (g - 1.0) / g * bytes / inside_rate;
                let between = (1.0 + width) * (nodes - 1.0) / nodes * bytes / between_rate;
                // A node's sum of a shard is written in f32, which nodes' sums read; results are copied,
                // to be sent on as one.
                let shard = bytes / g;
                let read = bytes + width * shard + shard;
                let written = width * shard + shard / nodes + shard;
                5.0 * base.0 + latency + within + between + (read + written) / self.memory_rate
            }
            Algorithm::Direct | Algorithm::TwoLevel => {
                let hop = if nodes > 1.0 { network.0 } else { inside.0 };
                let within = (g - 1.0) / n * bytes / inside_rate;
                let between = g * out * bytes / between_rate;
                // The sum of one shard of each rank: all are read, one is written.
                let sum = bytes * (1.0 + 1.0 / n) / self.memory_rate;
                2.0 * (base.0 + phase(hop, n - 1.0) + within.max(between)) + sum
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use halfstep::reduce::Link;

    use super::*;

    fn fabric(name: &str, ranks: usize) -> Fabric {
        Fabric::new(&Machine::named(name).unwrap(), ranks)
    }

    /// The f32 gradients of Wave2Vec2-base in one call of NCCL, against a transcription of all of NCCL's
    /// own model (which knows of channels and chunks as well): within a third.
    #[test]
    fn one_call_agrees_with_nccls_model() {
        let bytes = 4 * 94_396_320;
        for (machine, ranks, seconds) in [
            ("meluxina", 4, 2.5e-3),
            ("meluxina", 64, 18.0e-3),
            ("meluxina", 800, 20.6e-3),
            ("juwels-booster", 64, 9.8e-3),
            ("juwels-booster", 3664, 10.5e-3),
            ("lumi", 8, 6.7e-3),
            ("lumi", 128, 10.3e-3),
        ] {
            let (ours, _) = fabric(machine, ranks).fastest(Algorithm::LIBRARY, Dtype::F32, bytes);
            let ratio = ours / seconds;
            assert!((0.75..1.33).contains(&ratio), "{machine} {ranks}: {ours:e}, {seconds:e}");
        }
        // A small one is latency.
        let (ours, _) =
            fabric("juwels-booster", 3664).fastest(Algorithm::LIBRARY, Dtype::F32, 1 << 16);
        assert!((0.75..1.33).contains(&(ours / 130e-6)), "{ours:e}");
    }

    /// Twice the bytes, twice the time, once latency is nothing; no bytes or one rank, no time.
    #[test]
    fn costs_are_linear_in_bytes_and_nothing_alone() {
        use Algorithm::*;
        for algorithm in [Ring, Tree, Hierarchical, Direct, TwoLevel] {
            let many = fabric("leonardo", 64);
            let (one, two) = (
                many.seconds(algorithm, Dtype::Bf16, 1 << 34),
                many.seconds(algorithm, Dtype::Bf16, 1 << 35),
            );
            assert!((two / one - 2.0).abs() < 0.01, "{algorithm:?}");
            assert_eq!(many.seconds(algorithm, Dtype::Bf16, 0), 0.0);
            assert_eq!(fabric("leonardo", 1).seconds(algorithm, Dtype::Bf16, 1 << 20), 0.0);
        }
    }

    /// A ring's bytes leave a node once each way; a direct exchange sends every rank's by the same
    /// adapters, which is as many times more as a node has ranks.
    #[test]
    fn direct_exchange_loads_a_nodes_adapters_once_a_rank() {
        let many = fabric("meluxina", 64);
        let ratio = many.seconds(Algorithm::Direct, Dtype::Bf16, 1 << 34)
            / many.seconds(Algorithm::Ring, Dtype::Bf16, 1 << 34);
        assert!((3.5..4.1).contains(&ratio), "{ratio}");
    }

    /// What `reduce::Hierarchical` says that it sends: of `b` bytes of 16 bits, a node sends 3·b·(n−1)/n to
    /// others, of f32 2·b·(n−1)/n; the rest are bytes inside and of memory.
    #[test]
    fn two_levels_send_f32_sums_and_results_across() {
        let machine = Machine::named("meluxina").unwrap();
        let many = Fabric::new(&machine, 64);
        let bytes = 1usize << 36;
        for (wire, times) in [(Dtype::Bf16, 3.0), (Dtype::F16, 3.0), (Dtype::F32, 2.0)] {
            let across = times * 15.0 / 16.0 / (NETWORK_SHARE * 50e9);
            let rest = 1.5 / machine.inside_rate + 2.5 / machine.memory_rate;
            let seconds = many.seconds(Algorithm::TwoLevel, wire, bytes) / bytes as f64;
            assert!((seconds / (across + rest) - 1.0).abs() < 0.02, "{wire}: {seconds:e}");
        }
        // One node has nothing across.
        let node = Fabric::new(&machine, 4);
        let seconds = |algorithm| node.seconds(algorithm, Dtype::Bf16, bytes);
        assert_eq!(seconds(Algorithm::TwoLevel), seconds(Algorithm::Direct));
    }

    /// What would be measured of a machine gives its exchanges back: to what a line through three sizes
    /// knows of protocols.
    #[test]
    fn a_measured_link_is_what_two_nodes_exchange_by() {
        for name in ["juwels-booster", "meluxina", "lumi", "v100-100gbe"] {
            let mut machine = Machine::named(name).unwrap();
            let ranks = 2 * machine.per_node;
            let nominal = Fabric::new(&machine, ranks);
            let of = |fabric: &Fabric, bytes| fabric.seconds(Algorithm::Direct, Dtype::Bf16, bytes);
            let samples = [16 << 10, 1 << 20, 16 << 20].map(|bytes| (bytes, of(&nominal, bytes)));
            let link = Link::fit(&samples).unwrap();
            machine.between = Between::Measured(link);
            let measured = Fabric::new(&machine, ranks);
            for (bytes, seconds) in samples {
                let line = link.alpha + link.beta * bytes as f64;
                assert!((of(&measured, bytes) / line - 1.0).abs() < 0.05, "{name} {bytes}");
                assert!((of(&measured, bytes) / seconds - 1.0).abs() < 0.2, "{name} {bytes}");
            }
        }
    }

    /// However short: what a call takes by the model is no part of it.
    #[test]
    fn a_measured_link_may_be_faster_than_the_model() {
        for (name, alpha) in
            ["juwels-booster", "lumi"].iter().flat_map(|n| [0.0, 3e-6, 20e-6, 1e-3].map(|a| (n, a)))
        {
            let mut machine = Machine::named(name).unwrap();
            let link = Link { alpha, beta: 1e-9 };
            machine.between = Between::Measured(link);
            let measured = Fabric::new(&machine, 2 * machine.per_node);
            for bytes in [4 << 10, 16 << 20] {
                let seconds = measured.seconds(Algorithm::Direct, Dtype::Bf16, bytes);
                let ratio = seconds / link.seconds(bytes);
                assert!((ratio - 1.0).abs() < 0.05, "{name} {alpha:e} {bytes}: {ratio}");
            }
        }
    }
}
