//! Loss curves as an SVG picture.

use std::fmt::Write;

const WIDTH: f32 = 800.0;
const HEIGHT: f32 = 480.0;
const LEFT: f32 = 60.0;
const RIGHT: f32 = 150.0; // room for the legend
const TOP: f32 = 30.0;
const BOTTOM: f32 = 50.0;
/// Colours that stay apart for colour-blind eyes (Okabe, Ito 2008).
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7"];

/// One polyline for each named curve, over steps.
pub fn svg(curves: &[(String, &[f32])]) -> String {
    let steps = curves.iter().map(|(_, c)| c.len()).max().unwrap_or(0).max(2) - 1;
    let values = curves.iter().flat_map(|(_, c)| c.iter()).copied().filter(|v| v.is_finite());
    let top = values.fold(0.0f32, f32::max).max(0.1);
    let x = |step: f32| LEFT + step / steps as f32 * (WIDTH - LEFT - RIGHT);
    let y = |loss: f32| HEIGHT - BOTTOM - loss.clamp(0.0, top) / top * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut line = |text: String| {
        let _ = writeln!(svg, "{text}"); // writing to a string cannot fail
    };
    for i in 0..=5 {
        let part = i as f32 / 5.0;
        let (loss, step) = (part * top, part * steps as f32);
        line(format!(
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{loss:.2}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{step:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y(loss) + 4.0,
            x(step),
            HEIGHT - BOTTOM + 20.0,
            y = y(loss),
        ));
    }
    line(format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">step</text>\
         <text x=\"{LEFT}\" y=\"{:.1}\">training loss, mean over 20 steps</text>",
        x(steps as f32 / 2.0),
        HEIGHT - 8.0,
        TOP - 12.0,
    ));
    for (index, (name, losses)) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let finite = losses.iter().enumerate().filter(|(_, loss)| loss.is_finite());
        let points: Vec<String> =
            finite.map(|(i, &loss)| format!("{:.1},{:.1}", x(i as f32), y(loss))).collect();
        let legend = TOP + 10.0 + 22.0 * index as f32;
        line(format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\
             <path d=\"M{:.1} {legend}h24\" stroke=\"{colour}\" stroke-width=\"3\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            points.join(" "),
            WIDTH - RIGHT + 16.0,
            WIDTH - RIGHT + 46.0,
            legend + 4.0,
        ));
    }
    svg.push_str("</svg>\n");
    svg
}
