//! Text becomes HTML in one place: markup is only ever written in the program, and everything else is escaped. Pure.

use std::fmt::Write;

/// A page while it is written.
#[derive(Debug, Default)]
pub struct Html(String);

impl Html {
    /// Markup of the program's own; nothing from elsewhere has this lifetime.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Anything: of a configuration, an error, another machine.
    pub fn text(&mut self, text: &str) -> &mut Self {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Nothing that would turn a line around or hide in it.
                letter if letter.is_control() || ('\u{202a}'..='\u{202e}').contains(&letter) => self.0.push(' '),
                letter => self.0.push(letter),
            }
        }
        self
    }

    /// A coordinate.
    pub fn number(&mut self, number: f64) -> &mut Self {
        // Writing to memory does not fail.
        let _ = write!(self.0, "{:.1}", if number.is_finite() { number } else { 0.0 });
        self
    }

    pub fn count(&mut self, number: usize) -> &mut Self {
        let _ = write!(self.0, "{number}");
        self
    }

    pub fn finish(self) -> String {
        self.0
    }
}

/// `42 s`, `3 min 10 s`, `5 h 2 min`, `3 d 4 h`
pub fn span(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "never negative, and no age outgrows u64"
    )]
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 if seconds % 60 == 0 => format!("{} min", seconds / 60),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 if seconds % 3_600 < 60 => format!("{} h", seconds / 3_600),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// `1.4 GiB`
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_is_markup() {
        let mut html = Html::default();
        html.raw("<p>")
            .text("<script>alert('1')</script> & \"x\" \u{202e}\u{7}")
            .raw("</p>");
        let page = html.finish();
        assert_eq!(
            page,
            "<p>&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;x&quot;   </p>"
        );
    }

    #[test]
    fn spans_are_as_people_say_them() {
        for (seconds, told) in [
            (0.4, "0 s"),
            (300.0, "5 min"),
            (310.0, "5 min 10 s"),
            (7_200.0, "2 h"),
            (-5.0, "0 s"),
        ] {
            assert_eq!(span(seconds), told);
        }
    }
}
