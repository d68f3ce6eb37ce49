//! The report as one web page: no network, no other file. The page draws the report's JSON, which
//! stands in it, with a script of its own.

use std::io::{self, Write};

use super::{Report, table};

const PAGE: &str = include_str!("page.html");
/// Where the page takes its data and its title from.
const DATA: &str = "\"{{report}}\"";
const VERDICT: &str = "{{verdict}}";

/// Writes the page.
pub(super) fn write(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let data = serde_json::to_string(report)?;
    // Inside a script element, nothing may look like its end.
    let data = data.replace('<', "\\u003c");
    let page = PAGE
        .replace(VERDICT, &escape(&table::verdict(report)))
        .replace(DATA, &data);
    out.write_all(page.as_bytes())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_its_data_cannot_end_the_script() {
        let mut report = Report::begin("test", 0);
        report.setting("server", "a </script><b> & c");
        report.case("one").figure("rate", "msg/s", 5.0);
        let mut bytes = Vec::new();
        write(&mut bytes, &report).expect("memory");
        let page = String::from_utf8(bytes).expect("text");
        assert!(!page.contains("{{"), "a place was left open");
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(page.contains("test: sound"));
        for external in ["http://", "https://", " src=", "@import"] {
            // The name of the SVG namespace is no address that anything is fetched from.
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(external), "{external}");
        }
    }
}
