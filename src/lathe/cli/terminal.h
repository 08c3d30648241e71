// What writing to a person's terminal needs: is there one, how wide, may it be styled, and text of unknown origin made
// harmless.
#pragma once

#include <string>
#include <string_view>

namespace lathe::cli {

// Whether the descriptor is a terminal.
bool is_terminal(int fd);

// Whether the descriptor is a terminal that understands cursor movement: TERM is set and is not "dumb".
bool can_redraw(int fd);

// Whether text there may be dim or coloured: can_redraw() and no NO_COLOR.
bool can_style(int fd);

// Columns of the terminal, 80 where it does not say.
int terminal_width(int fd);

// Control characters, which could move the cursor, change the title or answer a query, as visible text: ESC becomes
// \x1b, U+009B becomes \x9b. Line feeds and tabs stay. Bytes that are not UTF-8 become U+FFFD.
std::string neutralised(std::string_view text);

// The text in dim letters when `styled`, else as it is.
std::string dim(std::string_view text, bool styled);

// At most `columns` characters of the text (valid UTF-8), the last one an ellipsis "..." where some are missing.
std::string cut_to_width(std::string_view text, int columns);

}  // namespace lathe::cli
