from components.errors import printable


def test_name_with_line_breaks_and_escape_sequences_stays_one_plain_line():
    assert printable("a\n\x1b[31mb\udcff é.jpg") == "a\\n\\x1b[31mb\\udcff é.jpg"
