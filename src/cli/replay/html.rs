//! The report as one HTML file: no script, no outside request, nothing unescaped.

use std::fmt::Write;

use super::report::{ClientRow, JailRow, Report};

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--dim:#59636e;--line:#d1d9e0;--fail:#d97706;--deny:#94a3b8;--ban:#b91c1c;--ok:#15803d}\
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--dim:#9198a1;--line:#30363d;--ban:#f87171;--ok:#4ade80}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:75rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid var(--line)}\
p,caption{color:var(--dim);text-align:left}table{border-collapse:collapse;width:100%;font-size:.875rem}\
th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font:.8125rem ui-monospace,monospace}\
.real{color:var(--ok);font-weight:600}svg{width:100%;height:auto;display:block;margin:.5rem 0}\
.fail{fill:var(--fail)}.deny{fill:var(--deny)}.ban{fill:var(--ban)}text{fill:var(--dim);font-size:11px}\
.key span{display:inline-block;width:.75rem;height:.75rem;margin:0 .25rem 0 1rem}";

/// Width and height of a timeline, and room for its labels.
const WIDTH: u64 = 1000;
const HEIGHT: u64 = 140;
const LABELS: u64 = 18;
/// Bars at most; longer spans put several hours into one.
const BARS: u64 = 240;

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::with_capacity(64 << 10);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>jailgate replay</title>\
         <style>{STYLE}</style><h1>jailgate replay</h1><p>"
    );
    for log in &report.logs {
        let (path, unparsed) = (escape(&log.path), log.unparsed);
        let _ = write!(
            out,
            "<code>{path}</code>: {}, {} lines, {unparsed} not understood<br>",
            log.format, log.lines
        );
    }
    if let (Some(first), Some(last)) = (&report.first, &report.last) {
        let _ = write!(out, "{} events from {first} to {last} (UTC)", report.events);
    }
    out.push_str("</p>");
    for jail in &report.jails {
        section(&mut out, jail, report);
    }
    out.push_str("</html>\n");
    out
}

fn section(out: &mut String, jail: &JailRow, report: &Report) {
    let _ = write!(
        out,
        "<h2>Jail {}</h2><p>{} bans of {} clients (of {} seen); <span class=\"real\">{} of them had successes too</span>: \
         likely real users. {} failures counted, {} requests denied.</p>",
        escape(&jail.jail),
        jail.bans,
        jail.clients_banned,
        jail.clients_seen,
        jail.likely_real_users,
        jail.failures,
        jail.denied
    );
    timeline(out, jail);
    let rows: Vec<_> = report
        .clients
        .iter()
        .filter(|row| row.jail == jail.jail)
        .collect();
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "<table><thead><tr><th>Client<th class=\"n\">Bans<th>First ban<th>For<th class=\"n\">Status<th>Path\
         <th class=\"n\">Requests<th class=\"n\">Successes<th class=\"n\">Denied</thead><tbody>",
    );
    for row in rows {
        client(out, row);
    }
    out.push_str("</tbody></table>");
}

fn client(out: &mut String, row: &ClientRow) {
    let real = if row.likely_real_user { " real" } else { "" };
    let _ = write!(
        out,
        "<tr><td><code>{}</code><td class=\"n\">{}<td>{}<td>{}<td class=\"n\">{}<td><code>{}</code>\
         <td class=\"n\">{}<td class=\"n{real}\">{}<td class=\"n\">{}",
        escape(&row.client),
        row.bans,
        row.first_ban,
        escape(&row.reason),
        row.last_status,
        escape(&row.path),
        row.requests,
        row.successes,
        row.denied
    );
}

/// Failures and denials as bars, bans as red marks on top of them.
fn timeline(out: &mut String, jail: &JailRow) {
    let (Some(first), Some(last)) = (jail.hours.first(), jail.hours.last()) else {
        return;
    };
    let hour = 3_600_000;
    let hours = (last.at - first.at) / hour + 1;
    let per_bar = hours.div_ceil(BARS);
    let mut bars = vec![(0_u64, 0_u64, 0_u64); hours.div_ceil(per_bar) as usize];
    for row in &jail.hours {
        let bar = &mut bars[((row.at - first.at) / hour / per_bar) as usize];
        *bar = (bar.0 + row.failures, bar.1 + row.denied, bar.2 + row.bans);
    }
    let highest = bars
        .iter()
        .map(|bar| bar.0 + bar.1)
        .max()
        .unwrap_or(0)
        .max(1);
    let step = WIDTH as f64 / bars.len() as f64;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"Timeline\">",
        HEIGHT + LABELS
    );
    for (at, (failures, denied, bans)) in bars.iter().enumerate() {
        let (x, width) = (at as f64 * step, (step - 1.0).clamp(1.0, 24.0));
        let height = |n: u64| n as f64 / highest as f64 * (HEIGHT - 12) as f64;
        let (failed, refused) = (height(*failures), height(*denied));
        let base = HEIGHT as f64;
        let _ = write!(
            out,
            "<g><title>{failures} failures, {denied} denied, {bans} bans</title>\
             <rect class=\"fail\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{failed:.1}\"/>\
             <rect class=\"deny\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{refused:.1}\"/>",
            base - failed,
            base - failed - refused
        );
        if *bans > 0 {
            let _ = write!(
                out,
                "<circle class=\"ban\" cx=\"{:.1}\" cy=\"6\" r=\"4\"/>",
                x + width / 2.0
            );
        }
        out.push_str("</g>");
    }
    let y = HEIGHT + LABELS - 4;
    let _ = write!(
        out,
        "<text x=\"0\" y=\"{y}\">{}</text><text x=\"{WIDTH}\" y=\"{y}\" text-anchor=\"end\">{}</text></svg>\
         <p class=\"key\"><span style=\"background:var(--fail)\"></span>failures\
         <span style=\"background:var(--deny)\"></span>denied\
         <span style=\"background:var(--ban)\"></span>bans begun; one bar is {per_bar} h</p>",
        first.hour, last.hour
    );
}

/// Text for an element or a quoted attribute. Control characters go too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}
