//! The bar chart: a pair of bars per benchmark, as long as their figures, the longer one full.

use crate::measure::{Row, Sample};
use std::fmt::Write;

const LABELS: u32 = 260;
const BARS: f64 = 380.0;
const WIDTH: u32 = 860;
const HEAD: u32 = 44;
const PAIR: u32 = 46;
const BOP: &str = "#2f6fb0";
const RIVAL: &str = "#b8bec6";

/// Writes the benchmarks that have both sides as SVG.
pub fn write(file: &str, rows: &[Row]) -> std::io::Result<()> {
    std::fs::write(file, chart(rows))
}

fn chart(rows: &[Row]) -> String {
    let pairs: Vec<(&Row, Sample, Sample)> =
        rows.iter().filter_map(|row| Some((row, row.bop?, row.rival?))).collect();
    let height = HEAD + PAIR * pairs.len() as u32 + 8;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    key(&mut svg, LABELS, BOP, "BOP");
    key(&mut svg, LABELS + 80, RIVAL, "the rival named below; shorter is better");
    for (i, (row, bop, rival)) in pairs.into_iter().enumerate() {
        pair(&mut svg, HEAD + PAIR * i as u32, row, bop, rival);
    }
    svg.push_str("</svg>\n");
    svg
}

fn key(svg: &mut String, x: u32, colour: &str, what: &str) {
    bar(svg, (x, 14), 12.0, colour);
    text(svg, (x + 18, 24), "start", what);
}

fn pair(svg: &mut String, y: u32, row: &Row, bop: Sample, rival: Sample) {
    let longest = bop.median.max(rival.median);
    text(svg, (LABELS - 10, y + 11), "end", row.name);
    text(svg, (LABELS - 10, y + 27), "end", &format!("vs {}", row.against));
    let figures = [(y, bop, BOP, row.ratio()), (y + 16, rival, RIVAL, None)];
    for (y, sample, colour, ratio) in figures {
        let length = (sample.median / longest * BARS).max(1.0);
        bar(svg, (LABELS, y), length, colour);
        let mut label = format!("{} {}", row.unit.figure(sample.median), row.unit.name());
        if let Some(ratio) = ratio {
            let _ = write!(label, " ({ratio:.1}x)");
        }
        text(svg, (LABELS + length as u32 + 8, y + 11), "start", &label);
    }
}

fn bar(svg: &mut String, (x, y): (u32, u32), length: f64, colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{length:.1}\" height=\"14\" fill=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, (x, y): (u32, u32), anchor: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{what}</text>");
}
