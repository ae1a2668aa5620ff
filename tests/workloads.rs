//! The models that benches and the program speak of, against published counts.
#![allow(missing_docs)]

#[path = "../benches/workloads/mod.rs"]
mod workloads;

use workloads::Model;

/// Tensors and parameters as the sources count them; multiply-adds of a forward pass where they are
/// published. ResNet-50: torchvision, 4.09 GMAC. Wave2Vec2: transformers. LLaMA: Meta.
#[test]
fn models_have_their_published_sizes() {
    let cases = [
        ("wav2vec2-base", 213, 94_396_320),
        ("wav2vec2-large", 405, 315_428_992 + 32 * 1024 + 32),
        ("llama-3-8b", 291, 8_030_261_248),
        ("resnet50", 161, 25_557_032),
    ];
    for (name, tensors, len) in cases {
        let model = Model::named(name).unwrap();
        assert_eq!((model.weights.len(), model.len()), (tensors, len), "{name}");
    }
    let resnet = Model::named("resnet50").unwrap();
    assert!((resnet.forward_flops() / 2.0 / 4.09e9 - 1.0).abs() < 0.01);
    let unet = Model::named("unet-52m").unwrap();
    assert!((unet.len() as f64 / 52e6 - 1.0).abs() < 0.01, "{}", unet.len());
    // A token of a transformer takes two operations for each weight, and its attention.
    let llama = Model::named("llama-3-8b").unwrap();
    let token = llama.forward_flops() / 4096.0;
    assert!((1.0..1.1).contains(&(token / (2.0 * 7.5e9))), "{token:e}");
}

#[test]
fn names_are_all_known_and_lists_are_whole() {
    for name in Model::NAMES {
        let model = Model::named(name).unwrap();
        assert_eq!(model.name, name);
        let mut names: Vec<_> = model.weights.iter().map(|weight| &weight.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), model.weights.len(), "{name}: every name once");
        assert_eq!(model.params().iter().map(|param| param.len).sum::<usize>(), model.len());
        let ready = model.ready(2.0);
        assert!((ready[0] - 2.0).abs() < 1e-9, "the first weight's gradient is the last");
        assert!(ready.is_sorted_by(|a, b| a >= b), "{name}");
    }
    assert!(Model::named("no-such-model").is_none());
}
