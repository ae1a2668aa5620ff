//! Parameter lists of real models.

use halfstep::reduce::Param;

/// Wave2Vec2-base with its CTC head, in registration order: 213 tensors, 94,396,320 parameters.
/// Source: `Wav2Vec2ForCTC(Wav2Vec2Config())` of the transformers library, `named_parameters()`.
pub fn wav2vec2_base_ctc() -> Vec<Param> {
    let mut params = Vec::new();
    let mut add = |name: String, len: usize| params.push(Param::new(name, len));
    add("masked_spec_embed".into(), 768);
    let mut channels = 1;
    for (layer, kernel) in [10, 3, 3, 3, 3, 2, 2].into_iter().enumerate() {
        add(format!("conv{layer}.weight"), 512 * channels * kernel);
        if layer == 0 {
            add("conv0.norm.weight".into(), 512);
            add("conv0.norm.bias".into(), 512);
        }
        channels = 512;
    }
    for (name, len) in [
        ("projection.norm.weight", 512),
        ("projection.norm.bias", 512),
        ("projection.weight", 768 * 512),
        ("projection.bias", 768),
        ("position.bias", 768),
        ("position.gain", 128),
        ("position.direction", 768 * 48 * 128),
        ("encoder.norm.weight", 768),
        ("encoder.norm.bias", 768),
    ] {
        add(name.into(), len);
    }
    for layer in 0..12 {
        for name in ["key", "value", "query", "out"] {
            add(format!("layer{layer}.{name}.weight"), 768 * 768);
            add(format!("layer{layer}.{name}.bias"), 768);
        }
        for (name, len) in [
            ("norm1.weight", 768),
            ("norm1.bias", 768),
            ("up.weight", 3072 * 768),
            ("up.bias", 3072),
            ("down.weight", 768 * 3072),
            ("down.bias", 768),
            ("norm2.weight", 768),
            ("norm2.bias", 768),
        ] {
            add(format!("layer{layer}.{name}"), len);
        }
    }
    add("lm_head.weight".into(), 32 * 768);
    add("lm_head.bias".into(), 32);
    params
}
