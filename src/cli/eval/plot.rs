//! The report as a picture: accuracy by part, the margins, and whether they keep their word.

use std::{error::Error, path::Path};

use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, DrawingArea, EmptyElement, ErrorBar, IntoDrawingArea, IntoSegmentedCoord, LineSeries,
        PathElement, Rectangle, SVGBackend, SegmentValue,
    },
    style::{Color, RGBColor, TRANSPARENT, WHITE},
};

use super::report::{Report, Share};
use crate::cli::CommandError;

const SIZE: (u32, u32) = (1200, 420);
const BLUE: RGBColor = RGBColor(31, 119, 180);
const RED: RGBColor = RGBColor(214, 39, 40);
const GREY: RGBColor = RGBColor(110, 110, 110);
/// Of the grid: there to be seen past.
const LINE: RGBColor = RGBColor(228, 228, 228);
/// More parts than these are unreadable; the table has them all.
const MOST_PARTS: usize = 12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes the picture as SVG.
pub(super) fn draw(report: &Report, path: &Path) -> Result<(), CommandError> {
    let mut svg = String::new();
    render(report, &mut svg).map_err(|error| format!("the plot can't be drawn: {error}"))?;
    std::fs::write(path, svg).map_err(|error| format!("{} can't be written: {error}", path.display()).into())
}

fn render(report: &Report, svg: &mut String) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((1, 3));
    accuracy(report, &areas[0])?;
    margins(report, &areas[1])?;
    calibration(report, &areas[2])?;
    root.present()?;
    drop(areas);
    drop(root);
    Ok(())
}

fn accuracy(report: &Report, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let parts: Vec<(&String, Share)> =
        report.parts.iter().take(MOST_PARTS).map(|(name, part)| (name, part.accuracy)).collect();
    let last = parts.len().saturating_sub(1);
    let mut chart = ChartBuilder::on(area)
        .caption("Accuracy, 95 % intervals", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(110)
        .build_cartesian_2d(-0.02..1.02, (0..last).into_segmented())?;
    let name = |segment: &SegmentValue<usize>| match segment {
        SegmentValue::CenterOf(index) => parts.get(last - (*index).min(last)).map_or(String::new(), |p| p.0.clone()),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE)
        .x_labels(6)
        .y_labels(parts.len())
        .y_label_formatter(&name)
        .draw()?;
    chart.draw_series(parts.iter().enumerate().map(|(index, (_, share))| {
        let row = SegmentValue::CenterOf(last - index);
        ErrorBar::new_horizontal(row, share.low, share.share, share.high, BLUE.filled(), 8)
    }))?;
    Ok(())
}

fn margins(report: &Report, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let (Some(first), Some(last)) = (report.margins.first(), report.margins.last()) else { return Ok(()) };
    let most = report.margins.iter().map(|bin| bin.count).max().unwrap_or(1);
    let to = if last.to > first.from { last.to } else { first.from + 1.0 };
    let mut chart = ChartBuilder::on(area)
        .caption("Margin of the right response", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(first.from..to, 0..most + most / 20 + 1)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh().light_line_style(TRANSPARENT).bold_line_style(LINE).x_labels(6).y_labels(6);
    mesh.y_desc("pairs").draw()?;
    chart.draw_series(report.margins.iter().map(|bin| {
        let colour = if bin.from < 0.0 { RED } else { BLUE };
        Rectangle::new([(bin.from, 0), (bin.to, bin.count)], colour.mix(0.75).filled())
    }))?;
    Ok(())
}

fn calibration(report: &Report, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let mut chart = ChartBuilder::on(area)
        .caption("Does the margin keep its word?", ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.48..1.02, -0.04..1.04)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(LINE)
        .x_labels(6)
        .y_labels(6)
        .x_desc("sigmoid of the margin")
        .y_desc("came true")
        .draw()?;
    chart.draw_series(LineSeries::new([(0.5, 0.5), (1.0, 1.0)], GREY))?;
    for bin in &report.calibration.bins {
        let (x, share) = (bin.mean_probability, bin.came_true);
        chart.draw_series([PathElement::new([(x, share.low), (x, share.high)], BLUE)])?;
        chart.draw_series([EmptyElement::at((x, share.share)) + Circle::new((0, 0), 4, BLUE.filled())])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{
        super::items::{Item, Label, Scores},
        *,
    };

    #[test]
    fn every_report_can_be_drawn() {
        let score = |reward| vec![Scores { reward, members: Vec::new() }];
        let item = |subset: &str, chosen, rejected| Item {
            label: Label { subset: subset.to_owned(), id: None },
            chosen: score(chosen),
            rejected: score(rejected),
        };
        for items in [
            vec![item("maths & logic", 1.0, 0.0), item("b", 0.0, 2.0), item("b", 3.0, 2.0)],
            vec![item("a", 0.0, 0.0)],
            vec![item("a", 0.0, 1.0)],
        ] {
            let mut svg = String::new();
            render(&Report::of(&items).unwrap(), &mut svg).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(!svg.contains("NaN") && !svg.contains("maths & logic"), "{svg}");
        }
    }
}
