//! Convolutional networks on images.

use super::{List, Model};

impl List {
    /// A convolution without bias, whose output is `side`×`side`, and its batch normalisation.
    fn convolution(&mut self, name: &str, kernel: usize, channels: [usize; 2], side: usize) {
        let len = kernel * kernel * channels[0] * channels[1];
        self.matrix(format!("{name}.weight"), len, side * side);
        self.norm(&format!("{name}.norm"), channels[1]);
    }
}

/// ResNet-50 (He et al., 2016) as in torchvision: 161 tensors, 25,557,032 parameters.
pub fn resnet50() -> Model {
    let mut list = List::default();
    list.convolution("stem", 7, [3, 64], 112);
    let (mut input, mut side) = (64, 56);
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let inner = 64 << stage;
        for block in 0..blocks {
            let name = |part: &str| format!("stage{stage}.{block}.{part}");
            let before = side;
            if block == 0 && stage > 0 {
                side /= 2;
            }
            list.convolution(&name("conv1"), 1, [input, inner], before);
            list.convolution(&name("conv2"), 3, [inner, inner], side);
            list.convolution(&name("conv3"), 1, [inner, 4 * inner], side);
            if block == 0 {
                list.convolution(&name("shortcut"), 1, [input, 4 * inner], side);
            }
            input = 4 * inner;
        }
    }
    list.linear("classes", 2048, 1000, 1);
    Model {
        name: "resnet50",
        source: "resnet50 of torchvision",
        sample: "an image of 224×224",
        unit: "images",
        convolutions: true,
        batch: 64,
        weights: list.0,
    }
}

/// A U-Net (Ronneberger et al., 2015) with 83 channels at the first level instead of 64, which gives it
/// 52 million parameters.
pub fn unet_52m() -> Model {
    let (width, size) = (83, 256);
    let mut list = List::default();
    let mut twice = |name: String, [input, output]: [usize; 2], side: usize| {
        list.convolution(&format!("{name}.conv1"), 3, [input, output], side);
        list.convolution(&format!("{name}.conv2"), 3, [output, output], side);
    };
    twice("down0".into(), [3, width], size);
    for level in 1..=4 {
        twice(format!("down{level}"), [width << (level - 1), width << level], size >> level);
    }
    for level in (0..4).rev() {
        let (above, here) = (width << (level + 1), width << level);
        // A transposed convolution: each of its inputs meets each of its weights once.
        let below = size >> (level + 1);
        list.matrix(format!("up{level}.transposed.weight"), 4 * above * here, below * below);
        list.vector(format!("up{level}.transposed.bias"), here);
        list.convolution(&format!("up{level}.conv1"), 3, [above, here], size >> level);
        list.convolution(&format!("up{level}.conv2"), 3, [here, here], size >> level);
    }
    list.linear("out", width, 3, size * size);
    Model {
        name: "unet-52m",
        source: "the U-Net of Ronneberger et al. 2015, 83 channels wide",
        sample: "an image of 256×256",
        unit: "images",
        convolutions: true,
        batch: 16,
        weights: list.0,
    }
}
