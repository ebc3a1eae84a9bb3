//! Charts as SVG, to stand inside a page: text and axes take the page's colour (`currentColor`),
//! grid lines are a half-transparent grey and series have middle tones, so that they can be read on
//! white and on black.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::Error;

/// Colours of the sides, in order; further sides begin again.
const PALETTE: [RGBColor; 13] = [
    RGBColor(0x80, 0x87, 0x92),
    RGBColor(0xe0, 0x7b, 0x16),
    RGBColor(0x2f, 0x7d, 0xe1),
    RGBColor(0x1f, 0x9d, 0x55),
    RGBColor(0xa8, 0x55, 0xd6),
    RGBColor(0xd6, 0x3c, 0x5e),
    RGBColor(0x14, 0xa3, 0xa8),
    RGBColor(0x9c, 0x6b, 0x3f),
    RGBColor(0xc2, 0x9b, 0x0c),
    RGBColor(0x6b, 0x8e, 0x23),
    RGBColor(0x5b, 0x5f, 0xc7),
    RGBColor(0xe8, 0x6f, 0xb0),
    RGBColor(0x7a, 0xa5, 0xb8),
];

const SIZE: (u32, u32) = (640, 360);
const FONT: (&str, u32) = ("sans-serif", 13);
const GRID: RGBAColor = RGBAColor(0x80, 0x80, 0x80, 0.25);

/// Height of a bar with its gap.
const BAR: i32 = 16;

/// Width of the names to the left of the bars.
const NAMES: i32 = 185;

/// Width of the values to the right of the bars.
const VALUES: i32 = 90;

/// Width of the values where each is followed by its side's name.
const NAMED_VALUES: i32 = 190;

/// Height of a row of dots.
const ROW: i32 = 20;

/// Radius of a dot.
const DOT: i32 = 4;

/// The farthest that a ratio is shown from 1.
const FARTHEST: f64 = 16.0;

/// A line of a chart.
pub struct Line {
    /// The number of the side that it belongs to.
    pub side: usize,
    /// The line's points.
    pub points: Vec<(f64, f64)>,
}

/// Bars with one name.
pub struct Bars {
    /// The name.
    pub name: String,
    /// The side and the length of each bar.
    pub values: Vec<(usize, f64)>,
}

/// Ratios in one row of a chart.
pub struct Dots {
    /// The row's name.
    pub name: String,
    /// The side of each dot, and its median, smallest and largest ratio.
    pub values: Vec<(usize, [f64; 3])>,
}

/// The colour of a side, as CSS has it.
pub fn color(side: usize) -> String {
    let RGBColor(red, green, blue) = PALETTE[side % PALETTE.len()];
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// A chart of times in nanoseconds (logarithmic, within `range`) over nines: 1 is p90, 2 is p99.
///
/// # Errors
/// Fails if the chart cannot be drawn.
pub fn latency(lines: &[Line], range: (f64, f64)) -> Result<String, Error> {
    let ends = lines.iter().filter_map(|line| line.points.last());
    let nines = ends.map(|point| point.0).fold(1.0, f64::max).ceil();
    let y = (range.0..range.1).log_scale();
    lines_chart(
        lines,
        0.0..nines,
        y,
        &|nines| percentile(*nines),
        &|nanos| duration(*nanos),
    )
}

/// A chart of bytes over milliseconds.
///
/// # Errors
/// Fails if the chart cannot be drawn.
pub fn memory(lines: &[Line]) -> Result<String, Error> {
    let points = lines.iter().flat_map(|line| &line.points);
    let (width, height) = points.fold((1.0f64, 1.0f64), |(x, y), point| {
        (x.max(point.0), y.max(point.1))
    });
    let mebibytes = |bytes: &f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    lines_chart(
        lines,
        0.0..width,
        0.0..height * 1.05,
        &|millis| format!("{millis:.0} ms"),
        &mebibytes,
    )
}

fn lines_chart<X, Y>(
    lines: &[Line],
    x: X,
    y: Y,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Result<String, Error>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    draw(SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(32)
            .x_label_area_size(28)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(GRID)
            .label_style(FONT)
            .x_label_formatter(x_label)
            .y_label_formatter(y_label)
            .draw()?;
        for line in lines {
            let style = PALETTE[line.side % PALETTE.len()].stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        }
        Ok(())
    })
}

/// Bars from the left, one a side, under the name of their group. `logarithmic` draws the length of
/// one more than the value, so that nothing has length 0.
///
/// # Errors
/// Fails if the chart cannot be drawn.
pub fn bars(
    groups: &[Bars],
    logarithmic: bool,
    label: &dyn Fn(f64) -> String,
) -> Result<String, Error> {
    let scale = |value: f64| if logarithmic { value.ln_1p() } else { value };
    bars_chart(groups, VALUES, &scale, &|_, value| label(value))
}

fn bars_chart(
    groups: &[Bars],
    beside: i32,
    scale: &dyn Fn(f64) -> f64,
    label: &dyn Fn(usize, f64) -> String,
) -> Result<String, Error> {
    let rows: usize = groups.iter().map(|group| group.values.len()).sum();
    let height = rows as i32 * BAR + (groups.len() as i32 + 1) * BAR / 2;
    let values = groups.iter().flat_map(|group| &group.values);
    let most = values.map(|value| scale(value.1)).fold(1e-9, f64::max);
    let room = f64::from(SIZE.0 as i32 - NAMES - beside);
    draw((SIZE.0, height as u32), |area| {
        let mut top = BAR / 2;
        for group in groups {
            area.draw(&Text::new(group.name.clone(), (4, top), FONT))?;
            for &(side, value) in &group.values {
                let end = NAMES + (room * scale(value) / most) as i32;
                let corners = [(NAMES, top), (end.max(NAMES + 1), top + BAR - 4)];
                let fill = PALETTE[side % PALETTE.len()].filled();
                area.draw(&Rectangle::new(corners, fill))?;
                area.draw(&Text::new(label(side, value), (end + 6, top), FONT))?;
                top += BAR;
            }
            top += BAR / 2;
        }
        Ok(())
    })
}

/// Bars as of [`bars`], linear, with a label that may tell the side.
///
/// # Errors
/// Fails if the chart cannot be drawn.
pub fn named_bars(groups: &[Bars], label: &dyn Fn(usize, f64) -> String) -> Result<String, Error> {
    bars_chart(groups, NAMED_VALUES, &|value| value, label)
}

/// Ratios on a logarithmic scale around 1, a row a name: a dot is a median, the line through it
/// goes from the smallest to the largest. What lies farther than 16 times away stands at the edge
/// as a ring. The first side is drawn last, larger, and in the colour of the text. `sides` are
/// those of the key, with their names.
///
/// # Errors
/// Fails if the chart cannot be drawn.
pub fn dots(rows: &[Dots], sides: &[(usize, String)]) -> Result<String, Error> {
    let medians = rows.iter().flat_map(|row| &row.values);
    let widest = medians.fold(2.0f64, |far, (_, [median, ..])| {
        far.max(median.max(1.0 / median))
    });
    let far = 2f64.powf(widest.log2().ceil()).min(FARTHEST);
    let (left, right) = (NAMES, SIZE.0 as i32 - 20);
    let at = |ratio: f64| {
        let share = (ratio.clamp(1.0 / far, far) * far).ln() / (far * far).ln();
        left + (f64::from(right - left) * share) as i32
    };
    let top = key_height(sides.len()) + ROW;
    let bottom = top + rows.len() as i32 * ROW;
    draw((SIZE.0, (bottom + 8) as u32), |area| {
        key(area, sides)?;
        let steps = far.log2() as i32;
        for power in -steps..=steps {
            let ratio = 2f64.powi(power);
            let line = [(at(ratio), top), (at(ratio), bottom)];
            let style = if power == 0 { BLACK.mix(0.6) } else { GRID };
            area.draw(&PathElement::new(line, style.stroke_width(1)))?;
            let style = TextStyle::from(FONT).pos(Pos::new(HPos::Center, VPos::Bottom));
            area.draw(&Text::new(ratio.to_string(), (at(ratio), top - 2), style))?;
        }
        for (row, y) in rows.iter().zip((top + ROW / 2..).step_by(ROW as usize)) {
            let name = TextStyle::from(FONT).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(row.name.clone(), (4, y), name))?;
            let mut values: Vec<_> = row.values.iter().collect();
            values.sort_by_key(|(side, _)| *side == 0);
            for &&(side, [median, smallest, largest]) in &values {
                let color = ink(side);
                let range = [(at(smallest), y), (at(largest), y)];
                area.draw(&PathElement::new(range, color.stroke_width(1)))?;
                let inside = (1.0 / far..=far).contains(&median);
                let style = if inside {
                    color.filled()
                } else {
                    color.stroke_width(1)
                };
                let radius = if side == 0 { DOT + 1 } else { DOT };
                area.draw(&Circle::new((at(median), y), radius, style))?;
            }
        }
        Ok(())
    })
}

/// Names of sides that stand beside each other in a key.
const KEY_COLUMNS: usize = 5;

fn key_height(sides: usize) -> i32 {
    sides.div_ceil(KEY_COLUMNS) as i32 * BAR + BAR / 2
}

fn key(area: &DrawingArea<SVGBackend<'_>, Shift>, sides: &[(usize, String)]) -> Drawn {
    let width = SIZE.0 as i32 / KEY_COLUMNS as i32;
    for (nth, (side, name)) in sides.iter().enumerate() {
        let x = (nth % KEY_COLUMNS) as i32 * width + 10;
        let y = (nth / KEY_COLUMNS) as i32 * BAR + BAR / 2;
        let color = ink(*side);
        area.draw(&Circle::new((x, y), DOT, color.filled()))?;
        let style = TextStyle::from(FONT).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(name.clone(), (x + 10, y), style))?;
    }
    Ok(())
}

fn ink(side: usize) -> RGBColor {
    if side == 0 {
        BLACK
    } else {
        PALETTE[side % PALETTE.len()]
    }
}

/// A chart as a file of its own, which a viewer may show on a light or a dark page.
pub fn standalone(svg: &str) -> String {
    const STYLE: &str = "<style>svg{color:#24292f;background:#fff}\
                         @media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}</style>";
    let inside = svg.find('>').map_or(0, |end| end + 1);
    format!("{}\n{STYLE}{}", &svg[..inside], &svg[inside..])
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The SVG that `paint` draws, in the page's colours.
fn draw(
    size: (u32, u32),
    paint: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn,
) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let failed =
            |error: &dyn std::fmt::Display| Error::Setup(format!("cannot draw a chart: {error}"));
        paint(&area).map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg.replace("#000000", "currentColor"))
}

/// The name of the quantile with this many nines: three give `p99.9`.
fn percentile(nines: f64) -> String {
    let digits = (nines.round() as usize).saturating_sub(2);
    format!("p{:.digits$}", 100.0 - 100.0 * 10f64.powf(-nines.round()))
}

/// A time in nanoseconds as text for people, to three digits.
pub fn duration(nanos: f64) -> String {
    let (value, unit) = match nanos {
        ..1e3 => (nanos, "ns"),
        ..1e6 => (nanos / 1e3, "µs"),
        ..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = match value {
        _ if value.fract() == 0.0 => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_for_people() {
        assert_eq!(
            [0.0, 1.0, 2.0, 5.0].map(percentile),
            ["p0", "p90", "p99", "p99.999"]
        );
        assert_eq!(
            [80.0, 1e3, 34_560.0, 4.25e6, 2e9].map(duration),
            ["80 ns", "1 µs", "34.6 µs", "4.25 ms", "2 s"]
        );
    }
}
