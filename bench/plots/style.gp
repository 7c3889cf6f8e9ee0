# Read by each plot. Grey on nothing reads on white and on black, and so do these colours.
set terminal svg size 760,480 font "sans-serif,13"
set border linecolor "#808080"
set tics textcolor "#808080"
set title textcolor "#808080"
set xlabel textcolor "#808080"
set ylabel textcolor "#808080"
set key textcolor "#808080" top left
set linetype 1 linecolor "#2f7ed8"
set linetype 2 linecolor "#808080"
set linetype 3 linecolor "#d9534f"
set linetype 4 linecolor "#3a9d5d"
set linetype 5 linecolor "#a06cd5"
