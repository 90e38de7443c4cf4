//! The picture: two plots of latency by percentile, drawn as SVG.
//!
//! ```text
//!   µs │  log          across: log of 1 / (1 - quantile), so that 90, 99 and 99.9 % are equally far apart
//!      │        ╭──
//!      │  ──────╯
//!      └──────────── %
//! ```

use std::fmt::Write as _;

use crate::client::Latencies;
use crate::goals::under_commands;
use crate::peers::{crowdsec, floors, haproxy, nginx, portcullis, rbldnsd, redis};
use crate::report::{Part, Report, grouped};

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 504.0;
const FONT: &str = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" \
                    font-size=\"13\" fill=\"#1f2328\"";
/// How far titles and names begin left of a plot, where the numbers of its axis stand.
const INDENT: f64 = 40.0;
/// Names that stand in one column; more of them take two.
const COLUMN: usize = 4;
/// Points of a line.
const POINTS: u32 = 200;
/// How many latencies must lie beyond the last percentile that is drawn.
const BEYOND: f64 = 10.0;

/// One line of a plot.
struct Line {
    label: String,
    colour: &'static str,
    /// The pattern of an SVG stroke; `none` is a whole line.
    dashes: &'static str,
    width: f64,
    latencies: Latencies,
}

/// How a server is drawn: ours and their floors in strong colours, in this order.
const LOOKS: [(&str, &str, &str, f64); 9] = [
    (floors::ECHO_UNIX, "#1a7f37", "2 4", 1.5),
    (floors::HELLO, "#0969da", "2 4", 1.5),
    (rbldnsd::NAME, "#a475f9", "none", 1.5),
    (redis::NAME, "#bf3989", "none", 1.5),
    (haproxy::NAME, "#d4a72c", "none", 1.5),
    (nginx::NAME, "#cf222e", "none", 1.5),
    (crowdsec::NAME, "#57606a", "none", 1.5),
    (portcullis::TCP, "#0969da", "none", 3.0),
    (portcullis::UNIX, "#1a7f37", "none", 3.0),
];

/// What of a run can be drawn; none if there is nothing.
pub(crate) fn draw(report: &Report) -> Option<String> {
    // Of several loops the last one, which is the open one: it tells most of a server's tail.
    let candidates = report.parts.last().map(|part| (part, lines(part)));
    let updates = report.updates.as_ref().map(|updates| (&updates.part, lines_under_updates(&updates.part)));
    let plots: Vec<(&Part, Vec<Line>)> = candidates.into_iter().chain(updates).collect();
    if plots.is_empty() {
        return None;
    }
    let across = WIDTH / plots.len() as f64;
    let body: String = plots
        .iter()
        .enumerate()
        .map(|(number, (part, lines))| Plot::new(number as f64 * across, across, lines).draw(part, lines))
        .collect();
    // A ground of its own, because pages are light or dark.
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" {FONT}>\n\
         <rect x=\"1\" y=\"1\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" stroke=\"#d0d7de\"/>\n\
         {body}</svg>\n",
        WIDTH - 2.0,
        HEIGHT - 2.0
    ))
}

fn lines(part: &Part) -> Vec<Line> {
    let line = |(name, colour, dashes, width): (&str, _, _, _)| {
        part.named(name).map(|measured| Line {
            label: name.replace('`', ""),
            colour,
            dashes,
            width,
            latencies: measured.all(),
        })
    };
    LOOKS.into_iter().filter_map(line).collect()
}

fn lines_under_updates(part: &Part) -> Vec<Line> {
    let looks = [(portcullis::TCP, "#0969da"), (portcullis::UNIX, "#1a7f37")];
    let line = |(name, label, colour, dashes): (&str, String, _, _)| {
        part.named(name).map(|measured| Line { label, colour, dashes, width: 2.0, latencies: measured.all() })
    };
    let pair = |(name, colour): (&'static str, _)| {
        let busy = under_commands(name);
        [line((name, format!("{name}, idle"), colour, "none")), line((&busy, busy.clone(), colour, "7 4"))]
    };
    looks.into_iter().flat_map(pair).flatten().collect()
}

/// Where a plot is, and what its axes span.
struct Plot {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    /// The last percentile, as the number of nines.
    nines: f64,
    /// The powers of ten at the bottom and at the top, in microseconds.
    powers: (f64, f64),
}

impl Plot {
    fn new(left: f64, across: f64, lines: &[Line]) -> Self {
        let fewest = lines.iter().map(|line| line.latencies.len()).min().unwrap_or_default();
        let nines = (fewest as f64 / BEYOND).max(10.0).log10().floor();
        let power = |ns: u64| (ns as f64 / 1_000.0).log10();
        let values =
            |quantile: f64| lines.iter().map(move |line| power(line.latencies.value_at_quantile(quantile)));
        let bottom = values(0.0).fold(f64::INFINITY, f64::min);
        let top = values(quantile(nines)).fold(f64::NEG_INFINITY, f64::max);
        let powers = ((bottom * 4.0).floor() / 4.0, (top * 4.0).ceil() / 4.0);
        Self { left: left + 62.0, top: 76.0, width: across - 104.0, height: 280.0, nines, powers }
    }

    fn x(&self, nines: f64) -> f64 {
        self.left + self.width * nines / self.nines
    }

    fn y(&self, micros: f64) -> f64 {
        let (bottom, top) = self.powers;
        self.top + self.height * (top - micros.log10()) / (top - bottom)
    }

    fn draw(&self, part: &Part, lines: &[Line]) -> String {
        let lines_drawn: String = lines.iter().map(|line| self.line(line)).collect();
        let title = format!(
            "<text x=\"{}\" y=\"34\" font-size=\"16\" font-weight=\"600\">{}</text>\n\
             <text x=\"{}\" y=\"54\" fill=\"#57606a\">latency in µs, by percentile</text>\n",
            self.left - INDENT,
            part.title,
            self.left - INDENT
        );
        [title, self.across(), self.upwards(), lines_drawn, self.legend(lines)].concat()
    }

    /// The percentiles.
    fn across(&self) -> String {
        let median = 2_f64.log10();
        let ticks = [median].into_iter().chain((1..=self.nines as u32).map(f64::from));
        ticks.fold(String::new(), |mut marks, nines| {
            let (x, bottom) = (self.x(nines), self.top + self.height);
            let percent = (quantile(nines) * 1e8).round() / 1e6;
            writeln!(
                marks,
                "<path d=\"M{x:.1} {}V{bottom}\" stroke=\"#eaeef2\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#57606a\">{percent} %</text>",
                self.top,
                bottom + 20.0
            )
            .expect("a text grows");
            marks
        })
    }

    /// The microseconds: 1, 2 and 5 of each power of ten.
    fn upwards(&self) -> String {
        let powers =
            (self.powers.0.floor() as i32..=self.powers.1.ceil() as i32).map(|power| 10_f64.powi(power));
        let values = powers.flat_map(|power| [power, 2.0 * power, 5.0 * power]);
        let within = |micros: &f64| (self.powers.0..=self.powers.1).contains(&micros.log10());
        values.filter(within).fold(String::new(), |mut marks, micros| {
            let (y, right) = (self.y(micros), self.left + self.width);
            writeln!(
                marks,
                "<path d=\"M{} {y:.1}H{right}\" stroke=\"#d8dee4\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#57606a\">{}</text>",
                self.left,
                self.left - 8.0,
                y + 4.5,
                grouped(micros as u64)
            )
            .expect("a text grows");
            marks
        })
    }

    fn line(&self, line: &Line) -> String {
        let point = |number: u32| {
            let nines = self.nines * f64::from(number) / f64::from(POINTS);
            let micros = line.latencies.value_at_quantile(quantile(nines)) as f64 / 1_000.0;
            format!("{:.1},{:.1} ", self.x(nines), self.y(micros))
        };
        let points: String = (0..=POINTS).map(point).collect();
        format!("<polyline points=\"{}\" fill=\"none\" {}/>\n", points.trim_end(), line.stroke())
    }

    /// The names below, those that are drawn on top first.
    fn legend(&self, lines: &[Line]) -> String {
        let columns = lines.len().div_ceil(COLUMN).min(2);
        let apart = (self.width + INDENT) / columns as f64;
        lines.iter().rev().enumerate().fold(String::new(), |mut names, (number, line)| {
            let x = self.left - INDENT + apart * (number % columns) as f64;
            let y = self.top + self.height + 52.0 + 22.0 * (number / columns) as f64;
            writeln!(
                names,
                "<path d=\"M{x:.1} {:.1}h26\" {}/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                y - 4.5,
                line.stroke(),
                x + 34.0,
                line.label
            )
            .expect("a text grows");
            names
        })
    }
}

impl Line {
    fn stroke(&self) -> String {
        let Self { colour, dashes, width, .. } = self;
        format!(
            "stroke=\"{colour}\" stroke-width=\"{width}\" stroke-dasharray=\"{dashes}\" \
             stroke-linejoin=\"round\""
        )
    }
}

/// The quantile with this many nines: 2 is 0.99.
fn quantile(nines: f64) -> f64 {
    1.0 - 10_f64.powf(-nines)
}
