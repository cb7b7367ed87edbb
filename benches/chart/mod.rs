//! Line charts as SVG, for the benchmarks `picture` and `soak`.
//!
//! [`svg`] draws panels next to each other. The image has a background of its own, so it is readable on light and on
//! dark pages. The series differ by colour and by the shape of their markers.
use std::fmt::Write;

/// Width of a panel.
const WIDTH: f64 = 470.0;
/// Height of a panel.
const HEIGHT: f64 = 400.0;
/// Margins of a panel: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (72.0, 56.0, 18.0, 56.0);
/// Height of the legend.
const LEGEND: f64 = 34.0;
/// Height of a caption line.
const LINE: f64 = 20.0;

const STYLE: &str = "\
    svg{--page:#fff;--ink:#1f2328;--soft:#59636e;--grid:#d8dee4;--a:#0969da;--b:#bc4c00;--c:#1a7f37}\
    @media(prefers-color-scheme:dark){svg{--page:#0d1117;--ink:#f0f6fc;--soft:#9198a1;--grid:#30363d;\
    --a:#58a6ff;--b:#ff9b5a;--c:#56d364}}\
    text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:var(--soft)}\
    .title{font-size:15px;font-weight:600;fill:var(--ink)}.name{fill:var(--ink)}.page{fill:var(--page)}\
    .grid{stroke:var(--grid);stroke-width:1}.line{fill:none;stroke-width:2.5;stroke-linejoin:round}\
    .a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}\
    .dot{stroke-width:2.5}.a.full{fill:var(--a)}.b.full{fill:var(--b)}.c.full{fill:var(--c)}.hollow{fill:var(--page)}";

pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) logarithmic: bool,
    /// Values that get a tick. If it is empty, ticks are chosen from the data.
    pub(crate) ticks: Vec<f64>,
}

#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// Draws the marker hollow: the measurement has a flaw that the caption explains.
    pub(crate) hollow: bool,
}

pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<Point>,
}

pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// Draws the panels next to each other, the lines of `caption` below them, and a legend if a panel has several series.
pub(crate) fn svg(panels: &[Panel], caption: &[String]) -> String {
    let legend = if panels[0].series.len() > 1 { LEGEND } else { 0.0 };
    let (width, height) = (WIDTH * panels.len() as f64, HEIGHT + legend + LINE * (caption.len() as f64 + 0.4));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n",
        caption.join(" ")
    );
    for (n, panel) in panels.iter().enumerate() {
        panel.draw(WIDTH * n as f64, &mut out);
    }
    let mut at = MARGIN.0;
    for (n, series) in panels[0].series.iter().enumerate().filter(|_| legend > 0.0) {
        let y = HEIGHT + 10.0;
        let _ = write!(out, "<path class=\"line {}\" d=\"M{at} {y}h30\"/>", class(n));
        draw_marker(n, at + 15.0, y, false, &mut out);
        let _ = writeln!(out, "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>", at + 38.0, y + 4.5, series.name);
        at += 80.0 + 7.2 * series.name.len() as f64;
    }
    for (n, line) in caption.iter().enumerate() {
        let y = HEIGHT + legend + LINE * (n as f64 + 0.5);
        let _ = writeln!(out, "<text x=\"{}\" y=\"{y}\">{line}</text>", MARGIN.0);
    }
    out.push_str("</svg>\n");
    out
}

/// CSS class of a series.
fn class(n: usize) -> &'static str {
    ["a", "b", "c"][n % 3]
}

/// Draws a marker. Each series has a shape of its own, for readers who cannot distinguish the colours.
fn draw_marker(n: usize, x: f64, y: f64, hollow: bool, out: &mut String) {
    let class = format!("dot {} {}", class(n), if hollow { "hollow" } else { "full" });
    let _ = match n % 3 {
        0 => writeln!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>"),
        1 => writeln!(out, "<path class=\"{class}\" d=\"M{:.1} {:.1}h8v8h-8z\"/>", x - 4.0, y - 4.0),
        _ => writeln!(out, "<path class=\"{class}\" d=\"M{x:.1} {:.1}l5 9h-10z\"/>", y - 6.0),
    };
}

impl Axis {
    /// The values that get a tick.
    fn tick_values(&self, values: &[f64]) -> Vec<f64> {
        if !self.ticks.is_empty() {
            return self.ticks.clone();
        }
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(l, m), v| (l.min(*v), m.max(*v)));
        if self.logarithmic {
            let decade = |v: f64| v.max(1e-9).log10();
            return (decade(least).floor() as i32..=decade(most).ceil() as i32).map(|e| 10f64.powi(e)).collect();
        }
        let rough = most / 5.0;
        let scale = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * scale >= rough).unwrap_or(10.0) * scale;
        (0..=(most / step).ceil() as i32).map(|n| f64::from(n) * step).collect()
    }

    /// Position of a value on the axis, between 0 and 1.
    fn position(&self, marks: &[f64], value: f64) -> f64 {
        let scaled = |v: f64| if self.logarithmic { v.max(1e-9).log10() } else { v };
        let (low, high) = (scaled(marks[0]), scaled(marks[marks.len() - 1]));
        (scaled(value) - low) / (high - low)
    }
}

/// Formats the label of a tick.
fn format_number(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e4 => format!("{},000", v / 1e3),
        v if v >= 1e3 => format!("{},{:03}", (v / 1e3).floor(), v % 1e3),
        v => format!("{}", (v * 1e6).round() / 1e6),
    }
}

impl Panel {
    fn draw(&self, left: f64, out: &mut String) {
        let (ml, mt, mr, mb) = MARGIN;
        let (w, h) = (WIDTH - ml - mr, HEIGHT - mt - mb);
        let all =
            |pick: fn(&Point) -> f64| -> Vec<f64> { self.series.iter().flat_map(|s| &s.points).map(pick).collect() };
        let (xs, ys) = (self.x.tick_values(&all(|p| p.x)), self.y.tick_values(&all(|p| p.y)));
        let x = |v: f64| left + ml + w * self.x.position(&xs, v);
        let y = |v: f64| mt + h * (1.0 - self.y.position(&ys, v));
        let _ = writeln!(out, "<text class=\"title\" x=\"{:.1}\" y=\"{}\">{}</text>", left + ml, 26.0, self.title);
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\">{}</text>", left + ml, 44.0, self.y.label);
        for v in &ys {
            let at = y(*v);
            let _ = write!(out, "<path class=\"grid\" d=\"M{:.1} {at:.1}h{w:.1}\"/>", left + ml);
            let (label, below) = (left + ml - 8.0, at + 4.5);
            let _ = writeln!(
                out,
                "<text x=\"{label:.1}\" y=\"{below:.1}\" text-anchor=\"end\">{}</text>",
                format_number(*v)
            );
        }
        for v in &xs {
            let (at, below) = (x(*v), mt + h + 20.0);
            let _ = writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{}</text>",
                format_number(*v)
            );
        }
        let (middle, foot) = (left + ml + w / 2.0, mt + h + 42.0);
        let _ = writeln!(out, "<text x=\"{middle:.1}\" y=\"{foot:.1}\" text-anchor=\"middle\">{}</text>", self.x.label);
        for (n, series) in self.series.iter().enumerate() {
            let path: Vec<_> = series.points.iter().map(|p| format!("{:.1} {:.1}", x(p.x), y(p.y))).collect();
            let _ = writeln!(out, "<path class=\"line {}\" d=\"M{}\"/>", class(n), path.join("L"));
            // More than 20 markers would hide the line.
            for p in series.points.iter().filter(|_| series.points.len() <= 20) {
                draw_marker(n, x(p.x), y(p.y), p.hollow, out);
            }
        }
    }
}
