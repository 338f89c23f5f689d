"""What a dashboard consists of: sections of rows of graphs."""

from collections.abc import Sequence
from dataclasses import dataclass

from aws_cdk import aws_cloudwatch as cloudwatch

Lines = Sequence[cloudwatch.IMetric]
WIDTH = 24
GRAPH_HEIGHT = 6


@dataclass(frozen=True, slots=True)
class Graph:
    """Lines against the left axis, which begins at 0, and others against the right one."""

    title: str
    left: Lines
    right: Lines = ()
    bounds: Sequence[cloudwatch.HorizontalAnnotation] = ()

    def drawn(self, width: int) -> cloudwatch.IWidget:
        axis = cloudwatch.YAxisProps(min=0, show_units=False)
        return cloudwatch.GraphWidget(
            title=self.title,
            width=width,
            height=GRAPH_HEIGHT,
            left=list(self.left),
            right=list(self.right),
            left_annotations=list(self.bounds),
            left_y_axis=axis,
            right_y_axis=axis,
        )


@dataclass(frozen=True, slots=True)
class Section:
    """Rows under a title, with one line that says what they mean."""

    title: str
    meaning: str
    rows: Sequence[Sequence[Graph]]

    def drawn(self) -> list[list[cloudwatch.IWidget]]:
        return [
            heading(self.title, self.meaning),
            *([graph.drawn(WIDTH // len(row)) for graph in row] for row in self.rows),
        ]


def heading(title: str, meaning: str) -> list[cloudwatch.IWidget]:
    return [cloudwatch.TextWidget(markdown=f"## {title}\n{meaning}", width=WIDTH, height=2)]
