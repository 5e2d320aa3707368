//! The page.

/// The page with a title and the entries, a line each.
pub fn render(title: &str, entries: &str) -> String {
    let title = escape(title);
    let items: String = entries
        .lines()
        .rev()
        .map(|entry| format!("<li>{}</li>\n", escape(entry)))
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <h1>{title}</h1>\n\
         <form method=\"post\" action=\"/entries\">\n\
         <input name=\"text\" maxlength=\"500\" required autofocus> <button>Sign</button>\n\
         </form>\n<ul>\n{items}</ul>\n</html>\n"
    )
}

/// Text that HTML shows as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_entry_comes_first_and_is_no_markup() {
        let page = render("A & B", "first\n<script>\n");
        assert!(page.contains("<h1>A &amp; B</h1>"), "{page}");
        assert!(
            page.contains("<li>&lt;script&gt;</li>\n<li>first</li>"),
            "{page}"
        );
    }
}
