"""What the pictures have in common: colours that the colour-blind can tell apart, dashes, and how fine they are."""

COLOURS = ("#006ba4", "#ff800e", "#595959", "#ababab", "#5f9ed1", "#c85200")
DASHES = ("-", "--", ":", "-.")
DOTS_PER_INCH = 130
