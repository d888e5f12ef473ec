//! Flamegraph as one SVG file with zoom and search, drawn by inferno; colours say the kind of code.
//!
//! inferno takes folded lines and colours by name: names are annotated with their kind, each annotated name gets its
//! colour in a palette, and inferno hides the annotations it knows. A legend is put into what it draws.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use inferno::flamegraph::{
    self, Direction, Options, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap},
};

use super::{
    RenderError, RenderOptions,
    folded::{self, Folded, Name},
    text, units,
};
use crate::model::{FrameKind, Profile, Unit, name};

/// Largest sum that is drawn: widths are shares in `f64`, exact to 53 bits.
pub const MAX_TOTAL: u64 = 1 << 53;

/// Longest name in the picture, characters. The full ones are in the other formats.
const MAX_CHARS: usize = 512;

/// Longest target in the picture's title, characters: a line of it has some 110. A command can be longer.
const MAX_TARGET: usize = 80;

/// Colour of process and thread frames.
const OWNER: Rgb = (176, 184, 200);

type Rgb = (u8, u8, u8);

/// Colour and label of a kind.
const fn look(kind: FrameKind) -> (Rgb, &'static str) {
    match kind {
        FrameKind::Kernel => ((236, 146, 52), "kernel"),
        FrameKind::Native => ((226, 104, 88), "native"),
        FrameKind::Jit => ((104, 190, 92), "JIT"),
        FrameKind::Baseline => ((170, 206, 92), "JIT, baseline"),
        FrameKind::Interpreted => ((162, 132, 214), "interpreted"),
        FrameKind::Stub => ((198, 166, 112), "runtime stub"),
        FrameKind::Inlined => ((92, 188, 200), "inlined"),
        FrameKind::Unknown => ((170, 170, 170), "unknown"),
    }
}

/// Writes the flamegraph.
///
/// # Errors
/// Those of writing or of the options; values or names that are too large to be drawn.
pub fn write(profile: &Profile, options: &RenderOptions, out: &mut dyn Write) -> Result<(), RenderError> {
    let folded = Folded::new(profile, options)?;
    // Each name by itself is made to fit a line, so that the palette has it as inferno sees it.
    let text = |name: &Name| folded::line(&[&(cut(folded::escape(&name.text)) + mark(name))]);
    let texts: Vec<_> = folded.names.iter().map(text).collect();
    folded::check_size(&folded, &texts)?;
    let total = folded.stacks.iter().fold(0u64, |sum, (_, value)| sum.saturating_add(*value));
    if total > MAX_TOTAL {
        return Err(RenderError::Overflow { limit: MAX_TOTAL });
    }
    let title = title(profile, options);
    let subtitle = subtitle(profile, options, total);
    if total == 0 {
        return Ok(empty(&title, &subtitle, out)?);
    }
    let mut palette = PaletteMap::default();
    for (name, text) in folded.names.iter().zip(&texts) {
        palette.insert(text, colour(name, text));
    }
    // The box of everything, which inferno gives the empty name.
    palette.insert("", Color { r: OWNER.0, g: OWNER.1, b: OWNER.2 });
    let mut drawing = Options::default();
    drawing.palette_map = Some(&mut palette);
    drawing.title = title;
    drawing.subtitle = Some(subtitle);
    (drawing.factor, drawing.count_name) = scale(profile, options);
    drawing.deterministic = true;
    drawing.bgcolors = Some(BackgroundColor::Flat(Color { r: 250, g: 250, b: 248 }));
    drawing.font_type = "monospace".to_owned();
    drawing.text_truncate_direction = TextTruncateDirection::Right;
    drawing.direction = if options.inverted { Direction::Inverted } else { Direction::Straight };
    // The lines are in frame order already, which gives one box per function; inferno's order by text would tear
    // `f` apart where `f (x)` exists. Its mode for time charts keeps the order it is given, last line first.
    drawing.flame_chart = true;
    let lines: Vec<_> = folded
        .stacks
        .iter()
        .rev()
        .map(|(stack, value)| {
            let names: Vec<_> = stack.iter().map(|&name| texts[name as usize].as_str()).collect();
            format!("{} {value}", names.join(";"))
        })
        .collect();
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut drawing, lines.iter().map(String::as_str), &mut svg)?;
    drop(lines);
    with_legend(&svg, &kinds(&folded), out)?;
    Ok(())
}

/// The annotation inferno hides. It has none for interpreted code, so that of wakers stands in, which none of our
/// stacks have. Nor has it one for baseline code, which is left without: no native function has a name of its kind.
const fn mark(name: &Name) -> &'static str {
    match name.kind {
        Some(FrameKind::Interpreted) => "_[w]",
        Some(FrameKind::Baseline) => "",
        kind => folded::annotation(kind),
    }
}

pub fn cut(name: String) -> String {
    match name.char_indices().nth(MAX_CHARS) {
        Some((at, _)) => format!("{}...", &name[..at]),
        None => name,
    }
}

/// The kind's colour, a little lighter or darker by name so that neighbours can be told apart.
fn colour(name: &Name, text: &str) -> Color {
    let (r, g, b) = name.kind.map_or(OWNER, |kind| look(kind).0);
    // FNV-1a: the same name has the same shade in every picture.
    let hash =
        text.bytes().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let shift = ((hash >> 16) % 37) as i16 - 18;
    let shade = |channel: u8| (i16::from(channel) + shift).clamp(0, 255) as u8;
    Color { r: shade(r), g: shade(g), b: shade(b) }
}

fn title(profile: &Profile, options: &RenderOptions) -> String {
    let or = |text: &str, other: &str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let default = || {
        let meta = &profile.meta;
        let target = text::cut(&meta.target, MAX_TARGET);
        format!("{} on {}", or(&target, "profile"), or(&meta.host, "an unknown host"))
    };
    cut(name::clean(options.title.clone().unwrap_or_else(default).as_bytes()))
}

fn subtitle(profile: &Profile, options: &RenderOptions, total: u64) -> String {
    let meta = &profile.meta;
    let sample_type = options.value_of(profile).map(|index| &profile.sample_types[index]);
    let what = match sample_type {
        Some(t) if t.unit == Unit::Nanoseconds => format!("{} {}", units::seconds(total), t.name),
        Some(t) if t.unit == Unit::Bytes => format!("{} {}", units::bytes(total), t.name),
        Some(t) => format!("{} {}", units::count(total), t.name),
        None => String::new(),
    };
    let mut text = format!("{what} in {}", units::seconds(meta.duration_ns));
    if meta.frequency_hz != 0 {
        _ = write!(text, ", {} at {} Hz", meta.sampler, meta.frequency_hz);
    }
    _ = write!(text, ", {}", units::utc(meta.start_unix_ns));
    if meta.is_own() {
        _ = write!(text, ", lost {}", units::count(profile.losses.lost_samples()));
    }
    if let Some(selection) = &options.selection {
        _ = write!(text, ", only {selection}");
    }
    cut(text)
}

/// The factor that inferno scales values by for its labels, and the name of the result.
pub fn scale(profile: &Profile, options: &RenderOptions) -> (f64, String) {
    match options.value_of(profile).map(|index| &profile.sample_types[index]) {
        Some(t) if t.unit == Unit::Nanoseconds => (1e-3, "us".to_owned()),
        Some(t) if t.unit == Unit::Bytes => (1.0, "bytes".to_owned()),
        Some(t) => (1.0, t.name.clone()),
        None => (1.0, String::new()),
    }
}

fn kinds(folded: &Folded) -> Vec<FrameKind> {
    FrameKind::ALL.into_iter().filter(|kind| folded.names.iter().any(|n| n.kind == Some(*kind))).collect()
}

/// Writes inferno's picture with a legend of these kinds in its lower left corner.
fn with_legend(svg: &[u8], kinds: &[FrameKind], out: &mut dyn Write) -> io::Result<()> {
    const END: &[u8] = b"</svg>";
    let (Some(body), Some(height)) = (svg.strip_suffix(END), height(svg)) else {
        return out.write_all(svg);
    };
    let mut legend = String::from("<g id=\"legend\" style=\"font-size:10px\">");
    let mut x = 10;
    for kind in kinds {
        let ((r, g, b), label) = look(*kind);
        _ = write!(
            legend,
            "<rect x=\"{x}\" y=\"{}\" width=\"9\" height=\"9\" fill=\"rgb({r},{g},{b})\"/>\
             <text x=\"{}\" y=\"{}\" style=\"font-size:10px\">{label}</text>",
            height - 13,
            x + 13,
            height - 5
        );
        x += 13 + 7 * label.len() + 12;
    }
    legend.push_str("</g>");
    out.write_all(body)?;
    out.write_all(legend.as_bytes())?;
    out.write_all(END)
}

/// The height attribute of the outer element.
fn height(svg: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(svg.get(..svg.len().min(1000))?).ok()?;
    let (_, rest) = head.split_once(" height=\"")?;
    rest.split_once('"')?.0.parse().ok()
}

/// inferno draws nothing without samples; this says so.
pub fn empty(title: &str, subtitle: &str, out: &mut dyn Write) -> io::Result<()> {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    writeln!(
        out,
        "<?xml version=\"1.0\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"120\" xmlns=\"http://www.w3.org/2000/svg\">\
         <g font-family=\"monospace\" text-anchor=\"middle\"><text x=\"50%\" y=\"24\" font-size=\"17\">{}</text>\
         <text x=\"50%\" y=\"48\" font-size=\"12\">{}</text>\
         <text x=\"50%\" y=\"84\" font-size=\"12\">no samples</text></g></svg>",
        escape(title),
        escape(subtitle)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::render::fixture;

    fn svg(profile: &Profile, options: &RenderOptions) -> String {
        let mut out = Vec::new();
        write(profile, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// `(title, fill)` of every box.
    fn boxes(svg: &str) -> Vec<(&str, &str)> {
        let parts = svg.split("<title>").skip(1);
        let all = parts.map(|part| {
            let (title, rest) = part.split_once("</title>").unwrap();
            let (_, fill) = rest.split_once("fill=\"").unwrap();
            (title, fill.split_once('"').unwrap().0)
        });
        all.collect()
    }

    #[test]
    fn a_long_command_does_not_push_the_title_off_the_picture() {
        let mut profile = fixture::mixed();
        profile.meta.target = "command javac A.java ".repeat(50);
        profile.meta.host = "somewhere".to_owned();
        let title = title(&profile, &RenderOptions::default());
        assert!(
            title.len() < 110 && title.starts_with("command javac") && title.ends_with("... on somewhere")
        );
    }

    #[test]
    fn colours_say_the_kind() {
        let text = svg(&fixture::mixed(), &RenderOptions::default());
        let near = |title: &str, kind: FrameKind| {
            let fill = boxes(&text).into_iter().find(|(t, _)| t.starts_with(title)).expect(title).1;
            let rgb: Vec<i32> = fill
                .trim_matches(|c: char| !c.is_ascii_digit())
                .split(',')
                .map(|n| n.parse().unwrap())
                .collect();
            let (r, g, b) = look(kind).0;
            [r, g, b].iter().zip(&rgb).all(|(want, got)| (i32::from(*want) - got).abs() <= 18)
        };
        assert!(near("vfs_read (150 samples, 15.00%)", FrameKind::Kernel));
        assert!(near("__libc_start_main (", FrameKind::Native));
        assert!(near("java.lang.String.hashCode (300 samples", FrameKind::Jit));
        assert!(near("org.example.Server.loop (", FrameKind::Interpreted));
        assert!(near("java.util.HashMap.hash (", FrameKind::Inlined));
        assert!(near("[unknown]+0xdead", FrameKind::Unknown));
    }

    #[test]
    fn hostile_names_are_text() {
        let text = svg(
            &fixture::mixed(),
            &RenderOptions { title: Some("<script>\u{1b}".to_owned()), ..RenderOptions::default() },
        );
        assert!(!text.contains("<script>"), "inferno's own has a type attribute");
        assert_eq!(text.matches("<script").count(), 1);
        assert!(text.contains("&lt;script&gt;\\x1b"));
        assert!(text.contains("&lt;/text&gt;&lt;script&gt;alert("));
    }

    #[test]
    fn pictures_are_deterministic_and_whole() {
        let options = RenderOptions { inverted: true, per_thread: true, ..RenderOptions::default() };
        let text = svg(&fixture::mixed(), &options);
        assert_eq!(text, svg(&fixture::mixed(), &options));
        assert!(text.contains("total_samples=\"1000\""));
        assert!(text.ends_with("</g></svg>"));
        assert!(boxes(&text).iter().any(|(title, _)| title.starts_with("java (4711) (300 samples")));
    }

    #[test]
    fn a_function_beside_a_longer_name_is_one_box() {
        let mut builder = fixture::Builder::default();
        builder.0.sample_types = vec![crate::model::SampleType::new("samples", Unit::Count)];
        let exe = fixture::module("/bin/x", crate::model::ModuleKind::Native);
        for stack in [&["main"][..], &["y", "main"], &["y", "main (1)"]] {
            let frames: Vec<_> = stack.iter().map(|name| fixture::at(&exe, 1, name)).collect();
            builder.sample(
                fixture::thread(1, 1, "x", "x"),
                &frames,
                crate::model::StackEnd::Complete,
                0,
                vec![1],
            );
        }
        let text = svg(&builder.0, &RenderOptions::default());
        let titles: BTreeSet<_> = boxes(&text).into_iter().map(|(title, _)| title).collect();
        assert!(titles.contains("main (2 samples, 66.67%)"), "{titles:?}");
    }

    #[test]
    fn no_samples_is_a_picture_too() {
        let profile = Profile { samples: Vec::new(), ..fixture::mixed() };
        assert!(svg(&profile, &RenderOptions::default()).contains(">no samples<"));
    }

    #[test]
    fn values_beyond_exact_shares_are_refused() {
        let mut profile = fixture::mixed();
        profile.samples[0].values[0] = i64::MAX / 2;
        let error = write(&profile, &RenderOptions::default(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, RenderError::Overflow { .. }));
    }
}
